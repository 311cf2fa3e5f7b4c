"""The properties that the panel's settings and the operators have in common. Only declares them.

A class that is registered inherits them by their annotations, so this file must not postpone annotations.
"""

from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty

# Of the shipped topology, of the surfaces in eyes and mouth, and of a head's lashes.
VERTICES, OPENINGS, LASHES = {"FULL": 51892, "HALF": 12826, "QUARTER": 3128, "LOOPS": 3003, "HEAD": 11564}, 1734, 960
BYTES_A_TEXEL = 0.08  # about what a texel of a frame's own texture takes in its JPEG file; sharp videos take more
STRIDES = {"FULL": 1, "HALF": 2, "QUARTER": 4}

EYE_DISTANCE = {
    "name": "Eye Distance (mm)", "min": 1.0, "max": 10_000.0, "soft_min": 50.0, "soft_max": 75.0, "precision": 1, "step": 10,
    "description": "Distance between the eyes' centres in reality, in millimetres: it sets the head's scale. "
                   "The mean of adults is 63"}


class ResultOptions:
    """What a captured face is built like."""

    topology: EnumProperty(
        name="Topology", description="Which mesh the face is built as", default="HEAD",
        # The numbers are what files keep.
        items=(("HEAD", "Head", "MakeHuman's hm08 head with eyes, teeth, tongue, lashes and neck: 11,564 vertices, with its own UV layout "
                                "and the 52 ARKit shape keys", "NONE", 2),
               ("GRID", "Position Map Grid", "One vertex a texel of the position map: dense and even", "NONE", 0),
               ("LOOPS", "Face Loops", "MakeHuman's hm08 face with edge loops round eyes and mouth: 3,003 vertices, made to be animated",
                "NONE", 1)))
    detail: EnumProperty(
        name="Detail", description="How dense the position map's grid is; the other topologies have one density",
        items=(("FULL", "Full", "Every texel: about 52,000 vertices"),
               ("HALF", "Half", "Every second texel: about 13,000 vertices"),
               ("QUARTER", "Quarter", "Every fourth texel: about 3,000 vertices")))
    with_lashes: BoolProperty(
        name="Lashes", default=True,
        description="Give the head lashes, as thin blades in a material of their own; off: to put others on")
    surface: EnumProperty(
        name="Surface", description="How much of the network's own surface is kept",
        items=(("FITTED", "Clean", "Smooth skin, fitted to the shapes that heads have"),
               ("RAW", "Raw", "What the network gave, with its bumps")))
    texture_size: EnumProperty(
        name="Texture", description="Side of the texture in pixels", default="2048",
        items=tuple((str(size), f"{size} px", f"{size} x {size} pixels") for size in (512, 1024, 2048, 4096)))
    with_shapes: BoolProperty(
        name="ARKit Shape Keys", default=False,
        description="Add the 52 ARKit shape keys, set to the photo's expression: to animate the face, and for other programs")
    with_camera: BoolProperty(
        name="Camera", default=True,
        description="Add a camera that sees the photo behind the face, and set the scene's resolution to the photo's")
    eye_distance: FloatProperty(default=63.0, **EYE_DISTANCE)
    focal: FloatProperty(
        name="Focal Length (mm)", default=0.0, min=0.0, max=2000.0, precision=0, step=100,
        description="The camera's lens, as told for a full-frame camera: from near by, noses are seen large and heads narrow, which it "
                    "sets right. 0: what the file tells, as phones' do; if it does not, and with 500 or more, from far away")


class TakeOptions:
    """What a video's face is built like, beside the topology, the texture and the scale."""

    way: EnumProperty(
        name="Animation", description="How the moving face is kept",
        items=(("ABSOLUTE", "Shape Keys", "A shape key a frame under one Evaluation Time curve: plays fastest"),
               ("ARKIT", "ARKit Keys", "The 52 ARKit shape keys with their curves: to edit, and to put onto other characters"),
               ("PC2", "Point Cache", "A PC2 file beside the .blend file, for long takes"),
               ("RELATIVE", "Relative Keys", "A shape key a frame, each with a curve of its own")))
    take_detail: EnumProperty(
        name="Detail", description="How dense the position map's grid is in every frame; the other topologies have one density",
        items=ResultOptions.__annotations__["detail"].keywords["items"], default="HALF")
    texture_frames: BoolProperty(
        name="Texture per Frame", default=False,
        description="A texture for every frame, as pictures in a folder beside the .blend file, instead of one for the whole take")
    quick: BoolProperty(
        name="Quick", default=False,
        description="Take three fifths of the time, without following the skin: small expressions come out weaker")
    match_time: BoolProperty(
        name="Match Scene", description="Give the scene the video's frame rate and length; off: the scene stays as it is")
    with_sound: BoolProperty(name="Sound", default=True, description="Add the movie's sound to the video sequencer")


class FaceOption:
    face: IntProperty(name="Face", default=1, min=0, soft_max=20,
                      description="Which face, counted from the largest, which is 1; 0 captures all of them")


def build_arguments(options: ResultOptions) -> dict:
    """The options as arguments of `build_face`."""
    return {"topology": options.topology.lower(), "stride": STRIDES[options.detail], "with_camera": options.with_camera,
            "shapes": options.with_shapes, "lashes": options.with_lashes}


def picture_megabytes(options) -> float:
    """About what a frame's own texture takes on the disk."""
    return BYTES_A_TEXEL * int(options.texture_size) ** 2 / 1e6


def megabytes_a_frame(options) -> float:
    """What a frame of shape keys or of a point cache costs."""
    if options.topology == "HEAD":
        return (VERTICES["HEAD"] - (0 if options.with_lashes else LASHES)) * 12 / 1e6
    return (VERTICES[options.topology if options.topology == "LOOPS" else options.take_detail] + OPENINGS) * 12 / 1e6
