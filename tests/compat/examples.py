"""encord-agents' published task agents, with a project for each, and stand-ins for the models that they call."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from encord.objects import Classification, Object
from encord.objects.attributes import RadioAttribute, TextAttribute
from encord.objects.coordinates import AudioCoordinates, BoundingBoxCoordinates
from encord.objects.frames import Range
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project
from numpy.typing import NDArray

from celery_agents.sandbox import Editor, Kind
from tests.compat.places import Example, Place

IMAGES = (Kind.IMAGE,) * 4
WITH_FRAMES = (Kind.IMAGE, Kind.IMAGE, Kind.IMAGE_GROUP, Kind.IMAGE_SEQUENCE, Kind.VIDEO)
VIDEOS = (Kind.VIDEO,) * 2
CAPTION_TITLES = ("Frame by frame captioning", "Summarisation of entire clip")
GRID = 4  # pixels: the red box is drawn on it, and what two decoders make of its edges is less


# --- stand-ins


def red_box(pixels: NDArray[np.uint8]) -> BoundingBoxCoordinates:
    """Where the sandbox's red box is: what a model would be for."""
    red = pixels.astype(int)
    rows, columns = np.where((red[..., 0] - red[..., 1:].max(axis=-1)) > 90)
    height, width = pixels.shape[:2]
    left, right = (round(float(edge) / GRID) * GRID / width for edge in (columns.min(), columns.max() + 1))
    top, bottom = (round(float(edge) / GRID) * GRID / height for edge in (rows.min(), rows.max() + 1))
    return BoundingBoxCoordinates(top_left_x=left, top_left_y=top, width=right - left, height=bottom - top)


def first_object(place: Place) -> Object:
    return place.project_of(place.project).ontology_structure.objects[0]


def detector(field: str) -> Callable[[Place], dict[str, Any]]:
    """A model that answers as the notebooks' ones do; they call the same field by different names."""

    def given(place: Place) -> dict[str, Any]:
        feature = first_object(place).feature_node_hash

        def predict(pixels: NDArray[np.uint8]) -> list[SimpleNamespace]:
            return [SimpleNamespace(coords=red_box(pixels), conf=0.5, **{field: feature})]

        return {"agent": predict}

    return given


#: For the example that draws its boxes at random: the SDK draws its trace ids from the usual generator.
OWN_RANDOM = random.Random()
RANDOM = ModuleType("random")
vars(RANDOM).update(vars(random), random=OWN_RANDOM.random, choice=OWN_RANDOM.choice)


def seeded(_place: Place) -> dict[str, Any]:
    OWN_RANDOM.seed(1)
    return {}


def mask_model(place: Place) -> dict[str, Any]:
    def convert(prediction: NDArray[np.uint8], ont_map: dict[int, Object], frame_idx: int) -> list[Any]:
        instance = ont_map[1].create_instance()
        instance.set_for_frames(red_box(prediction), frames=frame_idx)
        return [instance]

    return {
        "torch": SimpleNamespace(inference_mode=lambda: lambda function: function),
        "transform": lambda content: SimpleNamespace(to=lambda device: content),
        "device": "cpu",
        "model": lambda batch: batch,
        "convert_predictions_to_encord": convert,
    }


def chat(answer: str) -> Any:
    """A language model of OpenAI's that was asked with a picture or a text, and has one answer."""

    def create(*, messages: list[Any], **_options: Any) -> Any:
        for part in messages[-1]["content"] if isinstance(messages[-1]["content"], list) else []:
            assert part["type"] != "image_url" or part["image_url"]["url"].startswith(
                "data:image/jpeg;base64,"
            )
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=answer))])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    return SimpleNamespace(OpenAI=lambda: client)


def rephrasing(_place: Place) -> dict[str, Any]:
    def invoke(prompt: list[Any]) -> SimpleNamespace:
        caption = prompt[1]["content"][0]["text"]
        return SimpleNamespace(**{f"rephrase_{n}": f"{n}: {caption}" for n in (1, 2, 3)})

    return {"SYSTEM_PROMPT": "Rephrase.", "llm_structured": SimpleNamespace(invoke=invoke)}


def emotion(_place: Place) -> dict[str, Any]:
    def predict(asset: Path, *_models: object) -> str:
        return "happy" if sum(asset.read_bytes()) % 2 else "sad"

    return {"predict_emotion": predict, "model": None, "feature_extractor": None, "id2label": None}


def diarizer(_place: Place) -> dict[str, Any]:
    def transcribe(asset: Path) -> SimpleNamespace:
        assert asset.suffix == ".wav"
        segment = SimpleNamespace(encord_range=Range(0, 1000))
        return SimpleNamespace(
            speakers=["a"], root=[SimpleNamespace(speaker="a", text="hello", segment=segment)]
        )

    return {"Diarization": object, "diarizer": SimpleNamespace(diarize_and_transcribe=transcribe)}


def bird_router(place: Place) -> dict[str, Any]:
    bird = first_object(place)
    return {
        "PROJECT_HASH": place.project.project_hash,
        "STAGE_NAME": "Custom Router",
        "ontology_object": bird,
        "question": bird.get_child_by_title("Type"),
        "field_filter": bird.get_child_by_title("Bluejay"),
    }


def gemma() -> dict[str, Any]:
    """Modules whose model always answers with the first pathway."""
    transformers = MagicMock()
    transformers.AutoProcessor.from_pretrained.return_value.decode.return_value = "text"
    return {"torch": MagicMock(), "huggingface_hub": MagicMock(), "transformers": transformers}


# --- what people labelled before


def each_row(project: Project, label: Callable[[LabelRowV2, int], None]) -> None:
    for number, row in enumerate(project.list_label_rows_v2()):
        row.initialise_labels()
        label(row, number)
        row.save()


def captioned(project: Project) -> None:
    """All but the first have a caption."""

    def label(row: LabelRowV2, number: int) -> None:
        if number:
            caption = row.ontology_structure.classifications[0].create_instance()
            caption.set_answer(f"The droid lifts <cup_{number}>.")
            caption.set_for_frames(0)
            row.add_classification_instance(caption)

    each_row(project, label)


def spoken(project: Project) -> None:
    """One utterance in each."""

    def label(row: LabelRowV2, number: int) -> None:
        speech = row.ontology_structure.objects[0]
        said = speech.create_instance()
        utterance = speech.get_child_by_title("utterance", type_=TextAttribute)
        said.set_answer(("good", "bad", "well")[number], attribute=utterance)
        said.set_for_frames(coordinates=AudioCoordinates(range=[Range(0, 500)]))
        row.add_object_instance(said)

    each_row(project, label)


def checked(project: Project) -> None:
    """Some boxes of a checklist are ticked; one row has none."""

    def label(row: LabelRowV2, number: int) -> None:
        checklist = row.ontology_structure.get_child_by_title("What", type_=Classification)
        ticked = checklist.create_instance()
        ticked.set_answer(list(checklist.attributes[0].options[: number or 1]))
        ticked.set_for_frames(0)
        row.add_classification_instance(ticked)

    each_row(project, label)


def with_birds(project: Project) -> None:
    def label(row: LabelRowV2, number: int) -> None:
        bird = row.ontology_structure.objects[0]
        seen = bird.create_instance()
        kind = bird.get_child_by_title("Type", type_=RadioAttribute)
        seen.set_answer(kind.options[number % 2], attribute=kind)
        seen.set_for_frames(BoundingBoxCoordinates(height=0.5, width=0.5, top_left_x=0, top_left_y=0))
        row.add_object_instance(seen)

    each_row(project, label)


# --- the examples


def project_hash(blank: str, **more: str) -> Callable[[Place], dict[str, str]]:
    return lambda place: {blank: place.project.project_hash, **more}


def twin_blanks(place: Place) -> dict[str, str]:
    (stage, *_) = place.twin.workflow.stages.values()
    return {
        "<project_hash_a>": place.project.project_hash,
        "<project_hash_b>": place.twin.project_hash,
        "<transfer_agent_stage_uuid>": "Transfer",
        "<twin_completion_pathway>": stage.pathways[0].uuid,
        "<labeling_completion_pathway>": "done",
    }


def boxes(*names: str) -> Callable[[Editor], Editor]:
    def build(editor: Editor) -> Editor:
        for name in names:
            editor.add_object(name)
        return editor

    return build


EXAMPLES = [
    Example(
        name="prioritize_by_data_title",
        agents={"Prioritise": "by_file_name"},
        pathways=("to_annotation",),
        kinds=IMAGES,
        names=("0.jpg", "25.jpg", "50.jpg", "99.jpg"),
        blanks=project_hash("<your_project_hash>", **{"1e7751b3-6dc8-4796-a64b-d1323918b8f4": "Prioritise"}),
    ),
    Example(
        name="set_priority",
        agents={"Prioritise": "by_file_name"},
        pathways=("to_annotation",),
        kinds=IMAGES,
        names=("1.jpg", "25.jpg", "99.jpg", "100.jpg"),
        blanks=project_hash("<your_project_hash>", **{"<your_agent_stage_uuid>": "Prioritise"}),
    ),
    Example(
        name="prelabel_videos",
        agents={"pre-label": "run_something"},
        pathways=("annotate",),
        kinds=VIDEOS,
        ontology=boxes("One", "Two", "Three"),
        blanks=project_hash("<project_hash>"),
        given=seeded,
        modules={"random": RANDOM},
    ),
    Example(
        name="prelabel_images",
        agents={"pre-label": "pre_segment"},
        pathways=("annotate",),
        kinds=WITH_FRAMES,
        ontology=boxes("Object"),
        blanks=project_hash("<project-hash>"),
        given=detector("featureHash"),
    ),
    Example(
        name="prelabel_videos_by_hash",
        agents={"pre-label": "pre_segment"},
        pathways=("annotate",),
        kinds=(Kind.VIDEO, Kind.IMAGE_SEQUENCE),
        ontology=boxes("Object"),
        blanks=project_hash("<project-hash>"),
        given=detector("feature_hash"),
    ),
    Example(
        name="prelabel_sampled_videos",
        agents={"pre-label": "run_something"},
        pathways=("annotate",),
        kinds=VIDEOS,
        ontology=boxes("person"),
        blanks=project_hash("<project_hash>"),
        given=mask_model,
    ),
    Example(
        name="recaption",
        agents={"Recaptioning": "recaption_task"},
        pathways=("Completed", "No Human Caption"),
        kinds=(Kind.IMAGE, Kind.IMAGE, Kind.VIDEO),
        ontology=lambda editor: editor.add_text("Caption").add_text("1").add_text("2").add_text("3"),
        blanks=project_hash("<project_hash>"),
        given=rephrasing,
        modules={"langchain_openai": SimpleNamespace(ChatOpenAI=None)},
        prepare=captioned,
    ),
    Example(
        name="summarise_video",
        agents={"Frame Captioning": "caption_video", "Semantic Summarization": "summarise_captions"},
        pathways=("Captioned", "Summarised"),
        kinds=VIDEOS,
        ontology=lambda editor: editor.add_text(CAPTION_TITLES[0]).add_text(CAPTION_TITLES[1]),
        # Without a type the SDK finds the classification and its attribute, which have the same title.
        blanks=project_hash(
            "<your-project-hash>",
            **{f'("{title}")': f'("{title}", Classification)' for title in CAPTION_TITLES},
        ),
        modules={"openai": chat("a red box")},
    ),
    Example(
        name="sentiment_of_text",
        agents={"Sentiment analysis": "do_analysis"},
        pathways=("high confidence",),
        kinds=(Kind.AUDIO,) * 3,
        ontology=lambda editor: (
            editor.add_object("Speech", shape="audio")
            .with_text("utterance")
            .with_radio("sentiment", "positive", "neutral", "negative")
        ),
        blanks=project_hash("<Your project ID>"),
        given=lambda place: {
            "sentiment_task": lambda texts: [
                {"label": {"good": "POSITIVE", "bad": "NEGATIVE"}.get(text, "?")} for text in texts
            ]
        },
        prepare=spoken,
    ),
    Example(
        name="sentiment_of_speech",
        agents={"Emotion": "classify_by_sentiment"},
        pathways=("Sentiment Classified",),
        kinds=(Kind.AUDIO,) * 3,
        ontology=lambda editor: editor.add_radio("emotion", "happy", "sad"),
        blanks=project_hash("<YOUR_PROJECT_HASH>", **{"<YOUR_STAGE_ID>": "Emotion"}),
        given=emotion,
    ),
    Example(
        name="transcribe",
        agents={"Diarization": "do_diarization"},
        pathways=("high confidence", "low confidence"),
        kinds=(Kind.AUDIO,) * 2,
        ontology=lambda editor: editor.add_object("speaker", shape="audio").with_text(
            "utterance #transcript"
        ),
        blanks=project_hash("<your-project-hash>"),
        given=diarizer,
    ),
    Example(
        name="route_on_attributes",
        agents={"Custom Router": "move_to_next_stage"},
        pathways=("Pass", "Second Review"),
        kinds=IMAGES,
        ontology=lambda editor: editor.add_object("Bird").with_radio("Type", "Bluejay", "Robin"),
        given=bird_router,
        prepare=with_birds,
    ),
    Example(
        name="transfer_labels",
        agents={"Transfer": "copy_labels"},
        pathways=("done",),
        kinds=IMAGES[:3],
        ontology=lambda editor: editor.add_checklist("What", "Cup", "Table"),
        twin_ontology=lambda editor: editor.add_radio("Cup", "yes", "no").add_radio("Table", "yes", "no"),
        blanks=twin_blanks,
        prepare=checked,
    ),
]

PROGRAMS = [
    Example(
        name="llm_document_classification",
        agents={"Classify": "clip_image_classification"},
        pathways=("classified",),
        kinds=(Kind.PLAIN_TEXT,) * 3,
        ontology=lambda editor: editor.add_radio("Topic", "Boxes", "Droids"),
        modules={"openai": chat("droids")},
        is_program=True,
    ),
    Example(
        name="llm_image_captioning",
        agents={"Caption": "agent_image_captioning"},
        pathways=("captioned",),
        kinds=IMAGES,
        ontology=lambda editor: editor.add_text("Caption"),
        modules={"openai": chat("a red box")},
        is_program=True,
    ),
    Example(
        name="gemma_routing",
        agents={"Route": "gemma_pathway_choice"},
        pathways=("text", "other"),
        kinds=(Kind.PLAIN_TEXT, Kind.IMAGE, Kind.VIDEO),
        modules=gemma(),
        is_program=True,
    ),
]
