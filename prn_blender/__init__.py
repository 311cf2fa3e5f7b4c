"""PRN Face Capture: from a photograph or a video to a face mesh in Blender."""
