"""The queue of the cluster, as `status` looks at it."""

from __future__ import annotations

from pathlib import Path

from sweeps.record.slurm_client import ClusterView, Queue, SlurmError

from .entries import open_submissions, queued


def cluster_view(root: Path) -> ClusterView:
    """What SLURM knows of the runs below a root; nothing is asked where nothing was submitted to it."""
    try:
        if not any(open_submissions(root)):
            return ClusterView()
        return ClusterView(queued(root, Queue()), known=True)
    except SlurmError as error:
        return ClusterView(complaint=str(error))
