"""The one file that knows how Blender's versions differ. Reads bpy.app.version, touches nothing."""

import bpy


def usd_keeps_textures() -> dict:
    """Arguments that make the USD exporter refer to texture files where they are, and copy none."""
    if bpy.app.version >= (4, 5, 0):
        return {"export_textures_mode": "KEEP"}
    return {"export_textures": False}
