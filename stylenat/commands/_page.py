"""The page of ``tools/serve.py``: Gradio's controls around a ``Viewer``, and an application that asks no other host.

Gradio is optional, so it is imported by the functions.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from registry import UserError
from registry.wording import printable
from stylenat import video
from stylenat.commands._attention_figure import overlay
from stylenat.commands._viewer import Choice, Viewer
from stylenat.pixels import NotFinite

if TYPE_CHECKING:
    import gradio as gr

POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""The browser itself refuses whatever does not come from the page's own address."""
SIDE = 512
"""Pixels of the image on the page, at least."""
LARGEST_SEED = 2**31 - 1
FRAMES_PER_SECOND = 15
CSS = ".grid-wrap { overflow-y: auto !important; }"


def in_one_line(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The page shows a user's mistake as it is. Faults keep their traceback, in the terminal."""
    import gradio as gr

    @functools.wraps(handler)
    def guarded(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except (UserError, NotFinite) as error:
            raise gr.Error(printable(error), print_exception=False) from error

    return guarded


def page(viewer: Viewer, title: str) -> "gr.Blocks":
    """The page, with the controls that the generator has a use for."""
    import gradio as gr

    styles, names = viewer.num_styles, viewer.class_names
    controls: dict[str, gr.components.Component] = {}

    def seed(label: str, value: int) -> gr.Number:
        return gr.Number(value, label=label, precision=0, minimum=0, maximum=LARGEST_SEED)

    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        clicked = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                controls["seed"] = seed("Seed", 0)
                if styles:
                    controls["psi"] = gr.Slider(
                        min(0, viewer.psi), max(1.5, viewer.psi), viewer.psi, step=0.01, label="Truncation psi"
                    )
                if names:
                    choices = [("drawn as often as in the data", -1), *((printable(n), i) for i, n in enumerate(names))]
                    controls["number"] = gr.Dropdown(choices, value=-1, label="Class")
                controls["other"] = seed("Second seed", 1)
                if styles:
                    controls["amount"] = gr.Slider(0, 1, 0, step=0.05, label="Style mixing, share")
                if styles > 1:
                    controls["first"] = gr.Slider(0, styles - 1, 0, step=1, label="from style")
                    controls["last"] = gr.Slider(0, styles - 1, styles // 2 - 1, step=1, label="to style")
                frames = gr.Slider(2, 60, 15, step=1, label="Frames of the walk")
                start = gr.Button("Walk there and back")
            with gr.Column(scale=2, min_width=400):
                image = gr.Image(label="Image", type="pil", format="png", interactive=False, buttons=["download"])
                film = gr.Image(label="Walk", type="filepath", interactive=False, buttons=["download"], visible=False)
            if viewer.layers:
                with gr.Column(scale=2, min_width=400):
                    layers = [(f"layer {n}, {side}x{side}", n) for n, side in viewer.layers.items()]
                    layer = gr.Dropdown(
                        layers, value=layers[-1][1], label="Attention of this layer: click into the image"
                    )
                    maps = gr.Gallery(label="Attention", show_label=False, format="png", columns=2, buttons=[])

        def chosen(values: tuple[Any, ...]) -> Choice:
            given = dict(zip(controls, values, strict=True))
            for name in ("seed", "other"):
                if given[name] is None:
                    raise UserError(f"{controls[name].label} takes a number from 0 to {LARGEST_SEED}")
            if given.get("number") == -1:
                del given["number"]
            return Choice(**given)

        @in_one_line
        def draw(*values: Any) -> Any:
            if not viewer.layers:
                return picture(viewer.image(chosen(values)))
            pixel, number, *values = values
            if pixel is None:
                return picture(viewer.image(chosen(values))), []
            drawn, groups = viewer.attention(chosen(values), pixel)
            shown = [
                (picture(overlay(drawn, g.maps.mean(0), g.query)), printable(g.title))
                for g in groups
                if g.layer == number
            ]
            return picture(drawn), shown

        def pixel_of(event: gr.SelectData) -> tuple[int, int]:
            scale = video.enlarged_by(viewer.resolution, SIDE)
            column, row = (min(int(n) // scale, viewer.resolution - 1) for n in event.index)
            return row, column

        @in_one_line
        def walk(count: int, *values: Any) -> Any:
            path = Path(tempfile.mkdtemp(dir=film.GRADIO_CACHE), "walk.gif")
            moving = (video.enlarged(frame) for frame in viewer.walk(chosen(values), int(count)))
            video.write(path, moving, FRAMES_PER_SECOND)
            return gr.Image(str(path), visible=True)

        # One computation at a time: the maps are recorded while the generator runs.
        one: dict[str, Any] = {"concurrency_id": "generator", "concurrency_limit": 1, "api_visibility": "private"}
        hidden: dict[str, Any] = {"show_progress": "hidden"}  # The image stays until the next one is there.
        inputs, outputs, triggers = [*controls.values()], [image], [c.change for c in controls.values()]
        if viewer.layers:
            inputs, outputs = [clicked, layer, *inputs], [image, maps]
            triggers += [clicked.change, layer.change]
            image.select(pixel_of, None, clicked, **hidden, api_visibility="private")
        gr.on(
            [blocks.load, *triggers], draw, inputs, outputs, trigger_mode="always_last", show_progress="hidden", **one
        )
        start.click(walk, [frames, *controls.values()], film, **one)
    return blocks


def picture(image: Tensor) -> Any:
    """uint8 [3, side, side] as a Pillow image, enlarged exactly."""
    from PIL import Image

    return Image.fromarray(video.enlarged(image, SIDE).permute(1, 2, 0).contiguous().numpy())


def application(blocks: "gr.Blocks", host: str, port: int) -> Callable[..., Any]:
    """The page as an ASGI application. Pages of other sites cannot read it under a name of theirs."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"])
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=CSS,
    )

    async def with_policy(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await app(scope, receive, sent)

    return with_policy
