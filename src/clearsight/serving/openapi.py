"""What the routes' descriptions share: bodies, answers and errors as OpenAPI writes them, with examples."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
    "example": {
        "error": "the picture cannot be read (truncated): send a whole JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file"
    },
}
_REASONS = {
    400: "What was wrong, and what to do.",
    401: "No API key, or one that is not known.",
    403: "This server does not tell that.",
    404: "No such model.",
    408: "The body did not come in time.",
    413: "The body or the picture is too large.",
    415: "The body is compressed.",
    422: "A parameter is wrong.",
    429: "The key has used what it may; Retry-After says when to come again.",
    503: "Busy or too slow; Retry-After says when to come again.",
}
FILE: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "format": "picture",
    "description": "A picture file in base64.",
}


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route that takes a picture, and more."""
    return {
        status: {"description": _REASONS[status], "content": {"application/json": {"schema": ERROR}}}
        for status in sorted({400, 401, 403, 408, 413, 415, 422, 429, 503, *more})
    }


def answers(description: str, schema: Schema, example: Any) -> dict[int | str, dict[str, Any]]:
    """The answer of a route in JSON."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema, "example": example}}}}


PICTURE_BODY: Schema = {
    "requestBody": {
        "required": True,
        "description": "The picture file itself, a form with it in the field `picture`, or JSON with its base64.",
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                    "additionalProperties": False,
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": FILE},
                    "additionalProperties": False,
                },
                "example": {"picture": "iVBORw0KGgoAAAANSUhEUgAA..."},
            },
        },
    }
}


def json_body(schema: Schema, example: Any) -> Schema:
    """A body of JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}
ANSWER: Schema = {
    "type": "object",
    "required": ["class", "label"],
    "properties": {
        "class": {"type": "integer"},
        "label": {"type": "string"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1.00001},
        "value": {"type": "number"},
    },
}
MAP: Schema = {
    "type": "object",
    "required": ["method", "class", "shape", "values"],
    "properties": {
        "method": {"type": "string"},
        "layer": {"type": "string"},
        "class": {"type": "integer"},
        "shape": SHAPE,
        "values": {"type": "array", "items": NUMBERS},
    },
}
PREDICTION: Schema = {
    "type": "object",
    "required": ["model", "answers", "picture"],
    "properties": {
        "model": {"type": "string"},
        "answers": {"type": "array", "items": ANSWER},
        "picture": {"type": "object"},
        "map": MAP,
        "outlier": {"type": "object"},
    },
}
PREDICTION_EXAMPLE = {
    "model": "demo",
    "answers": [{"class": 967, "label": "espresso", "probability": 0.93}],
    "picture": {"width": 600, "height": 400, "notes": []},
    "map": {"method": "cam", "layer": "bn2", "class": 967, "shape": [2, 2], "values": [[0.1, 2.0], [-0.3, 0.0]]},
}
EXPLANATION: Schema = {
    "type": "object",
    "required": ["model", "method", "class", "label", "signed", "shape", "map"],
    "properties": {
        "model": {"type": "string"},
        "method": {"type": "string"},
        "class": {"type": "integer"},
        "label": {"type": "string"},
        "signed": {"type": "boolean"},
        "shape": SHAPE,
        "map": {"type": "array", "items": NUMBERS},
        "seconds": {"type": "number"},
        "forwards": {"type": "number"},
        "backwards": {"type": "number"},
    },
}
EXPLANATION_EXAMPLE = {
    "model": "demo",
    "method": "grad-cam(layer=bn2)",
    "class": 967,
    "label": "espresso",
    "signed": False,
    "shape": [2, 2],
    "map": [[0.1, 2.0], [0.0, 0.0]],
    "seconds": 0.03,
    "forwards": 1.0,
    "backwards": 1.0,
}
FEATURES: Schema = {
    "type": "object",
    "required": ["model", "layer", "features"],
    "properties": {"model": {"type": "string"}, "layer": {"type": "string"}, "features": NUMBERS},
}
FEATURES_EXAMPLE = {"model": "demo", "layer": "classifier", "features": [0.12, 0.0, 1.7]}
TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "datatype": {"type": "string"},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
INFER: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "properties": {
                    "name": {"const": "file"},
                    "shape": {"const": [1]},
                    "datatype": {"const": "BYTES"},
                    "data": {"type": "array", "items": FILE, "minItems": 1, "maxItems": 1},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": ["probabilities", "label"]}},
            },
        },
    },
}
INFER_EXAMPLE = {
    "inputs": [{"name": "picture", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [0, 128, 255, 9, 9, 9]}],
    "outputs": [{"name": "probabilities"}],
}
INFERRED: Schema = {
    "type": "object",
    "required": ["model_name", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": TENSOR},
    },
}
INFERRED_EXAMPLE = {
    "model_name": "demo",
    "model_version": "1",
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.9, 0.1]}],
}
INSTANCES: Schema = {
    "type": "object",
    "required": ["instances"],
    "properties": {
        "instances": {
            "type": "array",
            "minItems": 1,
            "maxItems": 4,
            "items": {"type": "object", "required": ["b64"], "properties": {"b64": FILE}},
        }
    },
}
INSTANCES_EXAMPLE = {"instances": [{"b64": "iVBORw0KGgoAAAANSUhEUgAA..."}]}


def unknown_model() -> dict[int | str, dict[str, Any]]:
    """The error of a route that names a model."""
    return {404: {"description": _REASONS[404], "content": {"application/json": {"schema": ERROR}}}}


def not_ready() -> dict[int | str, dict[str, Any]]:
    """The answer of a server that is stopping."""
    return {503: {"description": "Not any more.", "content": {"application/json": {"schema": {"type": "object"}}}}}


def no_key() -> dict[int | str, dict[str, Any]]:
    """The error of a route that asks for a key."""
    return {401: {"description": _REASONS[401], "content": {"application/json": {"schema": ERROR}}}}


def map_or_picture(description: str, schema: Schema, example: Any) -> dict[int | str, dict[str, Any]]:
    """The answer of a route in JSON, or as a PNG file."""
    told = answers(description, schema, example)
    told[200]["content"]["image/png"] = {"schema": {"type": "string", "format": "binary"}}
    return told
