"""`blender -b --command prn_capture INPUT -o OUT`: the command line inside Blender, with build.py's options and exit statuses."""

import bpy

_handle = None


def prn_capture(arguments: list[str]) -> int:
    from . import dependencies
    from .command_line import main

    problem = dependencies.problem()
    if problem:
        import sys
        print(problem, file=sys.stderr)
        return 2
    return main(["capture", *arguments])


def register() -> None:
    global _handle
    _handle = bpy.utils.register_cli_command("prn_capture", prn_capture)


def unregister() -> None:
    global _handle
    bpy.utils.unregister_cli_command(_handle)
    _handle = None
