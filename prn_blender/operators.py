"""The operators that capture: thin, they turn what is asked for into a worker's job and its result into scene objects.

Touch bpy's current scene through scene/ alone; what a user can get wrong becomes a report, never a traceback.
"""

import bpy
from bpy.app.translations import pgettext_rpt as rpt_
from bpy.props import IntProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from . import dependencies
from .modal import JobOperator, running_job, tell
from .options import FaceOption, ResultOptions, build_arguments
from .preferences import engine_choice
from .prn.errors import CaptureError
from .scene.versions import RELATIVE_PATH

IMAGES = ".jpg;.jpeg;.png;.webp;.tif;.tiff;.bmp"
MOVIES = ".mp4;.mov;.mkv;.avi;.webm;.m4v;.mpg;.mpeg;.ogv;.mts;.m2ts;.wmv;.3gp"


class PRN_OT_capture_image(JobOperator, bpy.types.Operator, ResultOptions, FaceOption):
    """Make a textured face mesh from a photo, or from one frame of a movie"""

    bl_idname = "prn.capture_image"
    bl_label = "Capture Face"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(name="Photo", description="Photo or movie with a face in it", subtype="FILE_PATH", **RELATIVE_PATH)
    frame: IntProperty(name="Frame", default=1, min=1, description="Which frame of a movie, counted from 1")
    collection: StringProperty(name="Collection", description="Collection to put the face into; empty: the scene's own")

    def invoke(self, context, event):
        if not self.filepath:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        self.in_window = True
        return self.start(context, "Capturing the face", self.work(context))

    def execute(self, context):
        return self.run(context, self.work(context))

    def work(self, context):
        """What the worker does: a function that needs nothing of bpy any more."""
        path, frame, texture_size = bpy.path.abspath(self.filepath), self.frame, int(self.texture_size)
        face, surface, interocular = self.face, self.surface.lower(), self.eye_distance / 1000
        engine = engine_choice(context)

        def work(job):
            from pathlib import Path

            from .footage import Picture
            from .prn.video import is_video
            from .stills import StillRequest, capture_still

            picture = Picture(Path(path), frame - 1 if is_video(Path(path)) and not Path(path).is_dir() else None)
            return capture_still(StillRequest(picture, face, surface, interocular, texture_size, engine), job.report)
        return work

    def build(self, context, stills):
        from .scene.face import build_face

        # Names, not references: while the window lives between two faces, an undo may replace all of bpy's data.
        self.built, placement, camera = [], None, ""
        parent = bpy.data.collections.get(self.collection)
        if self.collection and parent is None:
            self.report({"WARNING"}, rpt_("The collection '{name}' does not exist any more: the face was put into the scene."
                                          ).format(name=self.collection))
        for still in stills:
            built = build_face(still.capture, still.texture, context.scene, photo=still.photo, beside=placement,
                               camera=bpy.data.objects.get(camera) if camera else None,
                               parent=bpy.data.collections.get(self.collection), **build_arguments(self))
            built.mesh["prn_capture"].update({"number": still.number, "seconds": sum(still.seconds.values())})
            placement, camera = built.placement, built.camera.name if built.camera else ""
            self.built.append((built.collection.name, built.mesh.name))
            yield
        select(context, [bpy.data.objects[mesh] for _, mesh in self.built if mesh in bpy.data.objects])
        if getattr(self, "in_window", False):
            show_selected(context)
        vertices = len(bpy.data.objects[self.built[0][1]].data.vertices)
        if len(stills) == 1:
            self.report({"INFO"}, rpt_("Captured {name}: {count} vertices").format(name=self.built[0][1], count=vertices))
        else:
            self.report({"INFO"}, rpt_("Captured {faces} faces of {count} vertices each").format(faces=len(stills), count=vertices))

    def discard(self, context):
        from .scene.face import remove_face

        for collection, _ in getattr(self, "built", []):
            if collection in bpy.data.collections:
                remove_face(bpy.data.collections[collection])

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "face")
        draw_result(layout, self)


def draw_result(layout, options) -> None:
    """The result's options, in the panel and in the redo panel."""
    layout.prop(options, "topology")
    row = layout.row()
    row.active = options.topology == "GRID"
    row.prop(options, "detail")
    layout.prop(options, "surface")
    layout.prop(options, "texture_size")
    layout.prop(options, "eye_distance")
    layout.prop(options, "with_camera")


def select(context, faces) -> None:
    """Makes the faces the selection, where nothing else is being edited and the view layer has them."""
    context.view_layer.update()
    faces = [face for face in faces if face.name in context.view_layer.objects]
    if context.mode != "OBJECT" or not faces:
        return
    for piece in context.view_layer.objects.selected:
        piece.select_set(False)
    for face in faces:
        face.select_set(True)
    context.view_layer.objects.active = faces[0]


def show_selected(context) -> None:
    """Turns the 3D view to the new faces and their texture: in a scene as large as a room a face is not easily found."""
    area = next((area for area in context.screen.areas if area.type == "VIEW_3D"), None) if context.screen else None
    if area is None or context.mode != "OBJECT":
        return
    space = area.spaces.active
    if space.shading.type == "SOLID" and space.shading.color_type == "MATERIAL":
        space.shading.color_type = "TEXTURE"
    if space.region_3d.view_perspective != "CAMERA":
        region = next(region for region in area.regions if region.type == "WINDOW")
        with context.temp_override(area=area, region=region):
            bpy.ops.view3d.view_selected()


class PRN_OT_capture(bpy.types.Operator):
    """Capture the chosen face from the panel's source"""

    bl_idname = "prn.capture"
    bl_label = "Capture"

    @classmethod
    def poll(cls, context):
        from .scene.source import missing

        if not JobOperator.poll.__func__(cls, context):
            return False
        reason = missing(context.scene, context.scene.prn)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def invoke(self, context, event):
        return self.capture(context, "INVOKE_DEFAULT")

    def execute(self, context):
        return self.capture(context, "EXEC_DEFAULT")

    def capture(self, context, how):
        """Hands the settings over to the operator of what is asked for, so that its options are in the redo panel."""
        from .scene.source import footage_of

        settings = context.scene.prn
        try:
            problem = dependencies.problem()
            if problem:
                raise CaptureError(problem)
            picture = footage_of(context.scene, settings).at(context.scene.frame_current)
        except Exception as error:
            tell(self, error)
            return {"CANCELLED"}
        options = {name: getattr(settings, name) for name in (*ResultOptions.__annotations__, *FaceOption.__annotations__)}
        try:
            answer = bpy.ops.prn.capture_image(how, filepath=str(picture.path), frame=(picture.frame or 0) + 1,
                                               collection=settings.collection.name if settings.collection else "", **options)
        except RuntimeError as error:  # what an error report becomes on the way through Python
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}
        return answer & {"CANCELLED"} or {"FINISHED"}


class PRN_OT_import_face(bpy.types.Operator, ImportHelper):
    """Make a face mesh from a photo or a video"""

    bl_idname = "prn.import_face"
    bl_label = "Face from Photo or Video"
    bl_options = {"REGISTER"}

    filter_glob: StringProperty(default="".join(f"*{ending};" for ending in (IMAGES + ";" + MOVIES).split(";")),
                                options={"HIDDEN"})

    poll = JobOperator.poll

    def invoke(self, context, event):
        if self.filepath and self.properties.is_property_set("filepath"):  # dropped into the 3D view
            return self.capture(context)
        return ImportHelper.invoke(self, context, event)

    def execute(self, context):
        return self.capture(context)

    def capture(self, context):
        """Makes the file the panel's source, and captures it where that needs no further choice."""
        settings = context.scene.prn
        movie = self.filepath.lower().endswith(tuple(MOVIES.split(";")))
        settings.source = "MOVIE" if movie else "IMAGE"
        settings.path = self.filepath
        try:
            return bpy.ops.prn.capture("EXEC_DEFAULT" if bpy.app.background else "INVOKE_DEFAULT")
        except RuntimeError as error:
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}


class PRN_FH_face(bpy.types.FileHandler):
    bl_idname = "PRN_FH_face"
    bl_label = "Face from Photo or Video"
    bl_import_operator = "prn.import_face"
    bl_file_extensions = IMAGES + ";" + MOVIES

    @classmethod
    def poll_drop(cls, context):
        return context.area is not None and context.area.type == "VIEW_3D"


class PRN_OT_cancel(bpy.types.Operator):
    """Stop the running capture; the scene stays as it was"""

    bl_idname = "prn.cancel"
    bl_label = "Cancel"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context):
        return running_job() is not None

    def execute(self, context):
        running_job().cancel()
        return {"FINISHED"}


class PRN_OT_choose_face(bpy.types.Operator):
    """Capture this face"""

    bl_idname = "prn.choose_face"
    bl_label = "Choose Face"
    bl_options = {"INTERNAL"}

    face: IntProperty(name="Face", min=0, description="The face's number, counted from the largest; 0 is all")

    @classmethod
    def description(cls, context, properties):
        return rpt_("Capture all faces") if properties.face == 0 else rpt_("Capture face {number}").format(number=properties.face)

    def execute(self, context):
        context.scene.prn.face = self.face
        return {"FINISHED"}


def menu(self, context) -> None:
    self.layout.operator(PRN_OT_import_face.bl_idname, text="Face from Photo or Video")


CLASSES = (PRN_OT_capture_image, PRN_OT_capture, PRN_OT_import_face, PRN_FH_face, PRN_OT_cancel, PRN_OT_choose_face)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
