"""Whether scores would flatter: networks and the patients on whom they are to be scored."""

from collections.abc import Sequence

from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.models.trained import Trained


def check_match(dataset: Dataset, trained: Trained, cases: Sequence[Case], unseen: Sequence[Split]) -> None:
    """Refuse a dataset of another scheme, and patients that the networks have seen.

    Raises:
        ValueError: Names them.
    """
    if dataset.scheme is not trained.scheme:
        raise ValueError(
            f"{dataset.folder} has scheme {dataset.scheme.name}, the models {trained.scheme.name}; prepare it again"
        )
    for split in unseen:
        leaks = sorted({case.patient for case in cases} & trained.patients[split])
        if leaks:
            raise ValueError(
                f"patients {', '.join(leaks[:5])} of the {cases[0].split} split were in the {split} split when the "
                "models were trained: the scores would flatter; keep the split, or train again"
            )


def check_not_tested(dataset: Dataset, trained: Trained, cases: Sequence[Case]) -> None:
    """Refuse to fit on patients who were test patients when the networks were trained on this dataset.

    Raises:
        ValueError: Some of the dataset's patients were trained or validated on, and these were not.
    """
    seen = trained.patients[Split.TRAIN] | trained.patients[Split.VAL]
    new = sorted({case.patient for case in cases} - seen)
    if new and seen & {case.patient for case in dataset.cases}:
        raise ValueError(
            f"patients {', '.join(new[:5])} of the {cases[0].split} split were not when the networks were trained on "
            "this dataset, so they may have been tested on; keep the split, or train again"
        )
