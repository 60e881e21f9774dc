# bash completion of fastindex, see "fastindex completion --help"
_fastindex() {
    local -a lines
    mapfile -t lines < <(command fastindex completion --candidates -- bash \
        "${COMP_LINE:0:COMP_POINT}" "${COMP_LINE:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null)
    COMPREPLY=("${lines[@]:1}")
    case "${lines[0]-}" in
        directories) compopt -o filenames -o plusdirs ;;
        files) compopt -o default ;;
    esac
    # what is to be continued
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then compopt -o nospace; fi
}
complete -F _fastindex fastindex
