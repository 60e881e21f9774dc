# fish completion of fastindex, see "fastindex completion --help"
function __fastindex_candidates
    set -l before (commandline -opc)
    set -l current (commandline -ct | string trim --left --chars '\'"')
    set -l lines (command fastindex completion --candidates -- fish (count $before) $before \
        "$current" (commandline -op) 2> /dev/null)
    test (count $lines) -gt 1; and printf '%s\n' $lines[2..-1]
    set -l option (string match --regex -- '^--[^=]*=' $current)
    set -l path (string replace --regex -- '^--[^=]*=' '' $current)
    switch "$lines[1]"
        case directories
            __fish_complete_directories "$path" '' | string replace --regex -- '^' "$option"
        case files
            __fish_complete_path "$path" '' | string replace --regex -- '^' "$option"
    end
end
complete --command fastindex --no-files --arguments '(__fastindex_candidates)'
