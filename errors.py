"""Everything that can go wrong in use, as one exception tree.

Each message says what happened with its values, why, and what to do. `code` is the word that programs read
(the JSON API, `img2vec.py --json`, the catalog's `error_code`): it never changes once released.
A programmer's mistake is a `ValueError`, not one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LookalikeError(Exception):
    """Something that can go wrong in use; its text is written for the person who uses Lookalike."""

    code = "error"


class SettingsError(LookalikeError):
    """A setting has a value that it cannot have."""

    code = "bad_setting"


class RequestError(LookalikeError):
    """A request lacks something, or asks for something that makes no sense."""

    code = "bad_request"


class QueryError(RequestError, ValueError):
    """A search is asked for with a value that makes no sense: k, radius, box, dimension, a vector with NaN."""

    code = "bad_query"


class OptionError(RequestError, ValueError):
    """A view is asked for with a value that makes no sense: sim 2, an unknown method, an empty selection."""

    code = "bad_option"


class NoteError(RequestError, ValueError):
    """A name or a tag that cannot be given."""

    code = "bad_note"


class LabelError(RequestError, ValueError):
    """Nothing can be learnt from the labels as they are: one class, too few photographs, one picture under two labels."""

    code = "bad_labels"


class EditRefusedError(RequestError):
    """Somebody asks the service to change something that it does not let everybody change."""

    code = "edit_refused"


class SignInError(RequestError):
    """The request comes without the token that is asked for, or with a wrong one."""

    code = "sign_in"


class TooManyGuessesError(RequestError):
    """So many wrong tokens came from one address that none of its tokens is looked at for a while."""

    code = "too_many_guesses"


class UnknownHostError(RequestError):
    """The request names a host that this service is not known by."""

    code = "unknown_host"


class SlowUploadError(RequestError):
    """A request does not arrive in the time it may take."""

    code = "too_slow"


class UploadGoneError(RequestError):
    """What was kept of an upload is kept no longer, or never was."""

    code = "upload_gone"


class ClientGoneError(RequestError):
    """Whoever asked has hung up before the answer was begun."""

    code = "client_gone"


class OverloadedError(LookalikeError):
    """More is asked for at once than the service takes on."""

    code = "overloaded"


class BatchError(RequestError):
    """Some of many images cannot be searched with: `errors`, by their places. `rows` has the answers of the others."""

    code = "some_failed"

    def __init__(self, message: str, rows: Any, errors: Mapping[int, LookalikeError]) -> None:
        super().__init__(message)
        self.rows = rows
        self.errors = errors


class ImageError(LookalikeError):
    """A file cannot become an image."""

    code = "unreadable_image"


class NotAnImageError(ImageError):
    """The contents are of no image format that Lookalike reads."""

    code = "not_an_image"


class EmptyFileError(NotAnImageError):
    """The file has no bytes at all."""

    code = "empty_file"


class DamagedImageError(ImageError):
    """The contents begin as an image but cannot be decoded to their end."""

    code = "damaged_image"


class UnreadableFileError(ImageError):
    """The operating system refuses to hand out the file's bytes."""

    code = "unreadable_file"


class DecodingStoppedError(ImageError):
    """Decoding an image took too long, or brought its decoder down."""

    code = "decoding_stopped"


class ImageLimitError(ImageError):
    """The image is larger than a limit allows."""

    code = "too_large"


class TooManyBytesError(ImageLimitError):
    """The file has more bytes than `max_bytes`."""

    code = "too_many_bytes"


class TooManyPixelsError(ImageLimitError):
    """The header announces more pixels than `max_pixels`."""

    code = "too_many_pixels"


class TooManyFramesError(ImageLimitError):
    """The header announces more frames than `max_frames`."""

    code = "too_many_frames"


class CollectionError(LookalikeError):
    """The collection on disk cannot be used as asked."""

    code = "collection_error"


class CollectionMissingError(CollectionError):
    """There is no collection in the folder."""

    code = "no_collection"


class EmptyCollectionError(CollectionError):
    """The collection holds no image that can be searched."""

    code = "empty_collection"


class CollectionLockedError(CollectionError):
    """Another process is writing to the collection."""

    code = "collection_locked"


class CollectionMismatchError(CollectionError):
    """The collection was made by another backbone, layer or weights than asked for."""

    code = "collection_mismatch"


class NoNetworkError(CollectionMismatchError):
    """The vectors came from elsewhere: there is no network here that could make one of a new picture."""

    code = "no_network"


class FormatVersionError(CollectionError):
    """The collection was written by another version of the format."""

    code = "format_version"


class DamagedCollectionError(CollectionError):
    """Files of the collection contradict one another."""

    code = "damaged_collection"


class DiskFullError(CollectionError):
    """The disk (or a quota) has no room left for what must be written."""

    code = "disk_full"


class ImageNotFoundError(CollectionError):
    """The collection has no image of that id."""

    code = "unknown_image"


class OriginalGoneError(ImageNotFoundError):
    """The file of an image is gone, or is no longer the one that was indexed."""

    code = "original_gone"


class NoOriginalError(OriginalGoneError):
    """The image came into the collection without a file."""

    code = "no_original"


class CollectionReadOnlyError(CollectionError):
    """The catalog cannot be written to."""

    code = "read_only"


class ViewMissingError(CollectionError):
    """A view of the collection (groups, duplicates, map) has not been computed yet."""

    code = "no_view"


class BackboneError(LookalikeError):
    """A network cannot be loaded or run."""

    code = "backbone_error"


class WeightsUnavailableError(BackboneError):
    """The weights of a network cannot be had."""

    code = "weights_unavailable"


class DatasetError(LookalikeError):
    """A published data set cannot be had."""

    code = "no_dataset"


class MissingPackageError(LookalikeError):
    """Something optional is asked for whose package is not installed."""

    code = "missing_package"


class VectorsFileError(LookalikeError):
    """A file of vectors that is to be imported cannot be used."""

    code = "bad_vectors_file"


class ExportError(LookalikeError):
    """What is to be written to a file elsewhere cannot be."""

    code = "export_failed"


class ReducerError(LookalikeError):
    """A reducer cannot be trained, loaded or applied."""

    code = "reducer_error"


class IndexBuildError(LookalikeError):
    """A nearest-neighbour index could not be built."""

    code = "index_build"


class PlanError(LookalikeError):
    """A plan of what to do with duplicates cannot be read, or is true no more."""

    code = "bad_plan"


class QuarantineError(LookalikeError):
    """Files cannot be moved into a quarantine folder, or brought back from it."""

    code = "quarantine"


class LinksError(LookalikeError):
    """A folder of links to groups cannot be made where it is asked for."""

    code = "links"
