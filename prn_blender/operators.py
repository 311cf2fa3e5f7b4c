"""The operators that capture: thin, they turn what is asked for into a worker's job and its result into scene objects.

Touch bpy's current scene through scene/ alone; what a user can get wrong becomes a report, never a traceback.
"""

import bpy
from bpy.app.translations import pgettext_rpt as rpt_
from bpy.props import EnumProperty, IntProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from . import dependencies
from .modal import JobOperator, running_job, tell
from .next_steps import captured_face
from .options import STRIDES, FaceOption, ResultOptions, TakeOptions, build_arguments, megabytes_a_frame, picture_megabytes
from .preferences import cache_folder, engine_choice
from .prn import inputs
from .prn.errors import CaptureError
from .scene.versions import RELATIVE_PATH

IMAGES, MOVIES = ";".join(inputs.PICTURES), ";".join(inputs.MOVIES)


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
        topology = self.topology.lower()
        face, surface, interocular, focal = self.face, self.surface.lower(), self.eye_distance / 1000, self.focal
        engine = engine_choice(context)

        def work(job):
            from pathlib import Path

            from .footage import Picture
            from .stills import StillRequest, capture_still

            picture = Picture(Path(path), frame - 1 if inputs.is_video(Path(path)) else None)
            return capture_still(StillRequest(picture, face, surface, interocular, focal, topology, texture_size, engine), job.report)
        return work

    def build(self, context, stills):
        from .scene.face import FACTS, build_face

        first, faces = None, []
        parent = parent_collection(self)
        for still in stills:
            built = build_face(still.capture, still.texture, context.scene, photo=still.photo, parent=parent,
                               beside=first.placement if first else None, camera=first.camera if first else None,
                               **build_arguments(self))
            built.mesh[FACTS].update({"number": still.number, "seconds": sum(still.seconds.values())})
            first = first or built
            faces.append(built.mesh)
            yield
        select(context, faces)
        if getattr(self, "in_window", False):
            show_selected(context)
        for face in faces:
            if "doubt" in face[FACTS]:
                self.report({"WARNING"}, face[FACTS]["doubt"])
        vertices = len(faces[0].data.vertices)
        if len(faces) == 1:
            self.report({"INFO"}, rpt_("Captured {name}: {count} vertices").format(name=faces[0].name, count=vertices))
        else:
            self.report({"INFO"}, rpt_("Captured {faces} faces of {count} vertices each").format(faces=len(faces), count=vertices))

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "face")
        draw_result(layout, self)


def parent_collection(operator):
    """The collection that the operator's face goes into; None is the scene's own."""
    parent = bpy.data.collections.get(operator.collection)
    if operator.collection and parent is None:
        operator.report({"WARNING"}, rpt_("The collection '{name}' does not exist any more: the face was put into the scene."
                                          ).format(name=operator.collection))
    return parent


def draw_result(layout, options) -> None:
    """The result's options, in the panel and in the redo panel."""
    layout.prop(options, "topology")
    row = layout.row()
    row.active = options.topology == "GRID"
    row.prop(options, "detail")
    draw_lashes(layout, options)
    row = layout.row()
    row.active = options.topology != "HEAD"     # which is fitted always
    row.prop(options, "surface")
    layout.prop(options, "texture_size")
    layout.prop(options, "eye_distance")
    layout.prop(options, "focal")
    row = layout.row()
    row.active = options.topology != "HEAD"     # which has them always
    row.prop(options, "with_shapes")
    layout.prop(options, "with_camera")


def draw_lashes(layout, options) -> None:
    row = layout.row()
    row.active = options.topology == "HEAD"
    row.prop(options, "with_lashes")


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


class PRN_OT_capture_video(JobOperator, bpy.types.Operator, ResultOptions, TakeOptions, FaceOption):
    """Make an animated face from a movie, an image sequence, a strip of the video sequencer or a movie clip"""

    bl_idname = "prn.capture_video"
    bl_label = "Capture Performance"
    bl_options = {"REGISTER", "UNDO"}

    source: EnumProperty(
        name="Source", description="Where the video comes from",
        items=(("FILE", "File", "The file, with its own times"),
               ("STRIP", "Strip", "The active strip, where it lies and as it plays"),
               ("CLIP", "Clip", "The clip that the panel is set to")))
    filepath: StringProperty(name="Video", description="Movie, or one picture of a sequence", subtype="FILE_PATH", **RELATIVE_PATH)
    collection: StringProperty(name="Collection", description="Collection to put the face into; empty: the scene's own")

    def invoke(self, context, event):
        return self.attempt(context, lambda work: self.start(context, "Capturing the performance", work))

    def execute(self, context):
        return self.attempt(context, lambda work: self.run(context, work))

    def attempt(self, context, go):
        """What is wrong with the source is said before any work begins."""
        try:
            problem = dependencies.problem()
            if problem:
                raise CaptureError(problem)
            return go(self.work(context))
        except CaptureError as error:
            tell(self, error)
            return {"CANCELLED"}

    def work(self, context):
        from pathlib import Path

        from .scene import source
        from .takes import TakeRequest, capture_take

        scene = context.scene
        self.first, self.skipped, self.shown, self.sound = scene.frame_start, 0, None, None
        if self.source == "FILE":
            footage = self.shown = Path(bpy.path.abspath(self.filepath))
            self.sound = footage
        else:
            footage = source.of_strip(scene, None) if self.source == "STRIP" else source.of_clip(scene, scene.prn)
            self.first = footage.start
            frames = [picture.frame or index for index, picture in enumerate(footage.pictures)]
            if frames == list(range(frames[0], frames[0] + len(frames))):  # else no camera can play it as the strip does
                self.shown, self.skipped = footage.path, frames[0]
        if not self.face:
            raise CaptureError(rpt_("A performance is of one face: choose its number."))
        rate = scene.render.fps / scene.render.fps_base
        self.folder = cache_place()
        self.take_name = free_name(bpy.path.clean_name(self.shown.stem if self.shown else "Take"), self.folder)
        request = TakeRequest(footage, rate, self.face, self.eye_distance / 1000, self.focal, self.topology.lower(),
                              int(self.texture_size), engine_choice(context),
                              self.folder / f"{self.take_name}_texture" if self.texture_frames else None, None if self.match_time else rate,
                              self.quick)
        return lambda job: capture_take(request, job)

    def build(self, context, take):
        from .scene.footage import add_sound
        from .scene.performance import performance_steps
        from .scene.stage import match_time

        scene, performance = context.scene, take.performance
        if self.match_time:
            match_time(scene, performance.fps, performance.start + len(performance))
        built = yield from performance_steps(
            performance, take.texture, scene, way=self.way.lower(), topology=self.topology.lower(),
            stride=STRIDES[self.take_detail], source=self.shown, folder=self.folder, name=self.take_name, first=self.first,
            skipped=self.skipped, parent=parent_collection(self), lashes=self.with_lashes)
        for piece in filter(None, (built.mesh, built.openings)):
            for modifier in piece.modifiers:
                modifier.filepath = relative(modifier.filepath)
        if self.texture_frames:
            built.texture.filepath = relative(built.texture.filepath)
        for background in built.camera.data.background_images:
            background.image.filepath = relative(background.image.filepath)
        if self.with_sound and self.sound and self.sound.is_file():
            add_sound(scene, self.sound, self.first)
        select(context, [built.mesh])
        for warning in performance.warnings:
            self.report({"WARNING"}, warning)
        self.report({"INFO"}, rpt_("Captured {count} frames of {name}").format(count=int(performance.seen.sum()), name=built.mesh.name))

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "face")
        draw_take(layout, self)


class PRN_OT_add_shapes(JobOperator, bpy.types.Operator):
    """Give the captured face the 52 ARKit shape keys, and the expressions, of a video of the same person"""

    bl_idname = "prn.add_shapes"
    bl_label = "Shape Keys from Video"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(name="Video", description="Movie of the same person", subtype="FILE_PATH", **RELATIVE_PATH)
    filter_glob: StringProperty(default="".join(f"*{ending};" for ending in MOVIES.split(";")), options={"HIDDEN"})
    target: StringProperty(name="Face", description="The captured face; empty: the active one", options={"HIDDEN"})

    @classmethod
    def poll(cls, context):
        if captured_face(context) is None:
            cls.poll_message_set(rpt_("Select a captured face."))
            return False
        return JobOperator.poll.__func__(cls, context)

    def invoke(self, context, event):
        self.target = captured_face(context).name
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        """After the file browser in the window, where it goes on as a job; at one go without one."""
        from pathlib import Path

        self.target = self.target or captured_face(context).name
        path, engine = Path(bpy.path.abspath(self.filepath)), engine_choice(context)

        def work(job):
            from .takes import TakeRequest, capture_take
            return capture_take(TakeRequest(path, engine=engine, texture_size=None), job)
        if bpy.app.background or not self.options.is_invoke:
            return self.run(context, work)
        return self.start(context, "Capturing the performance", work)

    def build(self, context, take):
        from .scene.face import FACTS
        from .scene.same_person import add_shapes

        face = bpy.data.objects.get(self.target)
        if face is None or FACTS not in face:
            raise CaptureError(rpt_("The face '{name}' is gone: select another one, and choose the video again.").format(name=self.target))
        face[FACTS]["expression"] = add_shapes(face, take.performance, context.scene, face.name)
        self.report({"INFO"}, rpt_("'{name}' has 52 shape keys and moves for {count} frames").format(
            name=face.name, count=len(take.performance)))
        yield


def draw_take(layout, options) -> None:
    """The performance's options, in the panel and in the redo panel, and what they cost."""
    layout.prop(options, "way")
    layout.prop(options, "topology")
    row = layout.row()
    row.active = options.topology == "GRID"
    row.prop(options, "take_detail")
    draw_lashes(layout, options)
    layout.prop(options, "texture_size")
    layout.prop(options, "texture_frames")
    layout.prop(options, "eye_distance")
    layout.prop(options, "focal")
    layout.prop(options, "quick")
    layout.prop(options, "match_time")
    layout.prop(options, "with_sound")
    size = megabytes_a_frame(options)
    if options.way == "ARKIT":
        text = rpt_("{size:.0f} MB, however long it is").format(size=52 * size)
    else:
        text = rpt_("{size:.2f} MB a frame").format(size=size)
    layout.label(text=text, icon="DISK_DRIVE", translate=False)
    if options.texture_frames:
        layout.label(text=rpt_("Textures: about {size:.2f} MB a frame").format(size=picture_megabytes(options)), icon="IMAGE_DATA",
                     translate=False)


def free_name(name: str, folder) -> str:
    """A name whose point cache and textures are not there yet: another take's would be overwritten."""
    names = (name, *(f"{name}_{number}" for number in range(2, 10_000)))
    return next(free for free in names if not (folder / f"{free}_Face.pc2").exists() and not (folder / f"{free}_texture").exists())


def cache_place():
    """The folder for files that belong to the scene: beside it, or the add-on's own while it is not saved."""
    from pathlib import Path

    if bpy.data.filepath:
        return Path(bpy.path.abspath("//"))
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def relative(path: str) -> str:
    """The path as the saved .blend file should know it."""
    if not bpy.data.filepath or not path:
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # on another drive
        return path


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
        settings = context.scene.prn
        still = settings.source == "IMAGE" or settings.whole == "STILL"
        groups = (ResultOptions, FaceOption) if still else (ResultOptions, FaceOption, TakeOptions)
        options = {name: getattr(settings, name) for group in groups for name in group.__annotations__}
        options["collection"] = settings.collection.name if settings.collection else ""
        try:
            if still:
                picture = self.picture(context)
                answer = bpy.ops.prn.capture_image(how, filepath=str(picture.path), frame=(picture.frame or 0) + 1, **options)
            else:
                source = settings.source if settings.source in ("STRIP", "CLIP") else "FILE"
                answer = bpy.ops.prn.capture_video(how, source=source, filepath=bpy.path.abspath(settings.path), **options)
        except RuntimeError as error:  # what an error report becomes on the way through Python
            self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}
        except Exception as error:
            tell(self, error)
            return {"CANCELLED"}
        return answer & {"CANCELLED"} or {"FINISHED"}

    def picture(self, context):
        """What the source shows at the current frame. Raises CaptureError."""
        problem = dependencies.problem()
        if problem:
            raise CaptureError(problem)
        from .scene.source import footage_of

        return footage_of(context.scene, context.scene.prn).at(context.scene.frame_current)


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


CLASSES = (PRN_OT_capture_image, PRN_OT_capture_video, PRN_OT_add_shapes, PRN_OT_capture, PRN_OT_import_face, PRN_FH_face, PRN_OT_cancel, PRN_OT_choose_face)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
