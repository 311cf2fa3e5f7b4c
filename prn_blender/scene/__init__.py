"""What a captured face becomes in Blender: mesh, texture, material, camera, export. One thing a file; all touch bpy.

These modules know position maps and pictures, never tensors.
"""
