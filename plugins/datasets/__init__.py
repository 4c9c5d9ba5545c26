"""Data sets."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("dataset", "lmdb", "plugins.datasets.lmdb_dataset:LmdbDataset")
    register("dataset", "folder", "plugins.datasets.folder:Folder")
    register("dataset", "zip", "plugins.datasets.zip_dataset:Zip")
    register("dataset", "lfw_faces", "plugins.datasets.lfw_faces:LfwFaces")
    register("dataset", "subset", "plugins.datasets.subset:Subset")
