"""Words on a command line → options → exit code; one module a command.

The only package that prints, and in it only ``output`` does.
"""
