"""`framedit convert`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.command import one_line_errors, print_json
from cli.options import EPILOG, Json

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def convert(
    source: Annotated[Path, typer.Argument(help="Published .pt file, or diffusers folder.", exists=True)],
    output: Annotated[Path, typer.Argument(help="Checkpoint folder to create.")],
    model_name: Annotated[
        str | None,
        typer.Option("--model-name", help="Published name, for example FrameDiTH-XL/128-512/2-softmax_u-concat."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="Number of frames the model was trained on (.pt).")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Size in pixels the model was trained on (.pt).")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="Number of classes (.pt).", show_default="unconditional")
    ] = None,
    vae: Annotated[Path | None, typer.Option("--vae", help="Diffusers folder of the VAE (.pt).")] = None,
    weights: Annotated[
        Literal["ema", "model"] | None,
        typer.Option("--weights", help="Weights to take from a .pt.", show_default="ema; model for text models"),
    ] = None,
    prediction: Annotated[
        Literal["epsilon", "sample", "v"] | None,
        typer.Option("--prediction", help="Output of the model.", show_default="what the source says, or epsilon"),
    ] = None,
    learned_variance: Annotated[
        bool | None,
        typer.Option("--learned-variance/--no-learned-variance", help="Whether the model predicts a variance, too."),
    ] = None,
    small_variance: Annotated[
        bool | None,
        typer.Option(
            "--small-variance/--large-variance", help="Variance of the sampler's noise if it is not learned (.pt)."
        ),
    ] = None,
    vae_scale: Annotated[
        float | None,
        typer.Option(
            "--vae-scale", help="Scaling factor of the latents.", show_default="0.18215; the VAE's for text models"
        ),
    ] = None,
    attention_mode: Annotated[
        Literal["math", "flash", "xformers"] | None,
        typer.Option("--attention-mode", help="Attention mode of the training (.pt).", show_default="math"),
    ] = None,
    transformer: Annotated[
        Path | None,
        typer.Option("--transformer", help="Text-to-video .pt that replaces the transformer of the folder."),
    ] = None,
    lora: Annotated[Path | None, typer.Option("--lora", help="LoRA to merge into the weights (folder).")] = None,
    lora_alpha: Annotated[
        float | None, typer.Option("--lora-alpha", help="Alpha of a LoRA whose file does not contain it.")
    ] = None,
    temporal_decoder: Annotated[
        bool | None,
        typer.Option("--temporal-decoder", help="Decode with vae_temporal_decoder/ instead of vae/ (folder)."),
    ] = None,
    temporal_attention: Annotated[
        bool | None,
        typer.Option(
            "--temporal-attention/--no-temporal-attention",
            help="Whether temporal blocks run (folder).",
        ),
    ] = None,
    mask_feature: Annotated[
        bool | None,
        typer.Option("--mask-feature/--no-mask-feature", help="Whether the padding of prompts is cut off (folder)."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option("--dtype", help="Number format of the stored weights.")
    ] = "float32",
    id: Annotated[str | None, typer.Option("--id", help="Name of the model.", show_default="the folder's name")] = None,
    description: Annotated[str, typer.Option("--description", help="Description in card.json.")] = "",
    fps: Annotated[int, typer.Option("--fps", help="Frames per second in card.json.")] = 8,
    class_names: Annotated[
        Path | None, typer.Option("--class-names", help="Text file with one class name per line.", exists=True)
    ] = None,
    json: Json = False,
) -> None:
    """Convert published weights to a checkpoint folder.

    Its card.json holds the defaults of the published sampling scripts, which you can edit. Settings of the training are
    read from the arguments in a .pt that holds them; an option overrides them.
    """
    with one_line_errors():
        from cli.local.convert import PREDICTIONS, CardOptions, Source, convert

        conversion = convert(
            Source(
                path=source,
                vae=vae,
                model_name=model_name,
                num_frames=frames,
                image_size=image_size,
                num_classes=classes,
                weights=weights,
                prediction=PREDICTIONS[prediction] if prediction else None,
                learned_variance=learned_variance,
                small_variance=small_variance,
                vae_scale=vae_scale,
                attention_mode=attention_mode,
                transformer=transformer,
                lora=lora,
                lora_alpha=lora_alpha,
                temporal_decoder=temporal_decoder,
                temporal_attention=temporal_attention,
                mask_feature=mask_feature,
            ),
            output,
            CardOptions(id, description, fps, class_names),
            dtype,
            report=lambda line: typer.echo(line, err=True),
        )
        if json:
            print_json(
                {
                    "folder": str(output),
                    "model_name": conversion.model_name,
                    "parameters": conversion.parameters,
                    "provenance": conversion.config.provenance,
                }
            )
            return
        typer.echo(f"{output}  {conversion.model_name}, {conversion.parameters:,} parameters")
