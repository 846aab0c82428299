# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoleculeNet data sets as questions about a number, or with the answer yes or no.

Wu et al., MoleculeNet, Chem. Sci. 9, 513 (2018), https://moleculenet.org, which names the source
and the terms of each set; the copy in AttentiveFP's repository is marked CC0. Cite each set's own
publication too. The files have no official splits: splits by scaffold are made by who uses them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from modeling_mora.tasks_mora import Property

from .files import ROW, Paths, find_column, find_optional_column, open_tables
from .source import RawExample, RowError, Source, cell, needed_text, number

MOLECULE = ("smiles", "mol")

TOX21 = {
    "NR-AR": "activate the androgen receptor",
    "NR-AR-LBD": "activate the ligand-binding domain of the androgen receptor",
    "NR-AhR": "activate the aryl hydrocarbon receptor",
    "NR-Aromatase": "inhibit aromatase",
    "NR-ER": "activate the estrogen receptor alpha",
    "NR-ER-LBD": "activate the ligand-binding domain of the estrogen receptor alpha",
    "NR-PPAR-gamma": "activate the peroxisome proliferator-activated receptor gamma",
    "SR-ARE": "activate the antioxidant response element pathway",
    "SR-ATAD5": "raise the level of ATAD5, a sign of DNA damage",
    "SR-HSE": "activate the heat shock response",
    "SR-MMP": "lower the mitochondrial membrane potential",
    "SR-p53": "activate the p53 pathway",
}
# MedDRA's system organ classes, in the order of the published columns.
SIDER = {
    "Hepatobiliary disorders": "cause hepatobiliary disorders",
    "Metabolism and nutrition disorders": "cause metabolism and nutrition disorders",
    "Product issues": "have side effects recorded as product issues",
    "Eye disorders": "cause eye disorders",
    "Investigations": "cause abnormal results of medical investigations",
    "Musculoskeletal and connective tissue disorders": (
        "cause musculoskeletal and connective tissue disorders"
    ),
    "Gastrointestinal disorders": "cause gastrointestinal disorders",
    "Social circumstances": "have side effects on social circumstances",
    "Immune system disorders": "cause immune system disorders",
    "Reproductive system and breast disorders": "cause reproductive system and breast disorders",
    "Neoplasms benign, malignant and unspecified (incl cysts and polyps)": (
        "cause benign, malignant or unspecified neoplasms"
    ),
    "General disorders and administration site conditions": (
        "cause general disorders and administration site conditions"
    ),
    "Endocrine disorders": "cause endocrine disorders",
    "Surgical and medical procedures": (
        "have side effects that need surgical and medical procedures"
    ),
    "Vascular disorders": "cause vascular disorders",
    "Blood and lymphatic system disorders": "cause blood and lymphatic system disorders",
    "Skin and subcutaneous tissue disorders": "cause skin and subcutaneous tissue disorders",
    "Congenital, familial and genetic disorders": (
        "cause congenital, familial and genetic disorders"
    ),
    "Infections and infestations": "cause infections and infestations",
    "Respiratory, thoracic and mediastinal disorders": (
        "cause respiratory, thoracic and mediastinal disorders"
    ),
    "Psychiatric disorders": "cause psychiatric disorders",
    "Renal and urinary disorders": "cause renal and urinary disorders",
    "Pregnancy, puerperium and perinatal conditions": (
        "affect pregnancy, puerperium or perinatal conditions"
    ),
    "Ear and labyrinth disorders": "cause ear and labyrinth disorders",
    "Cardiac disorders": "cause cardiac disorders",
    "Nervous system disorders": "cause nervous system disorders",
    "Injury, poisoning and procedural complications": (
        "cause injury, poisoning and procedural complications"
    ),
}


@dataclass(frozen=True)
class MoleculeNetSet:
    """One data set.

    Attributes:
        identity: names of the column with its ids; none for row numbers.
        properties: the number that is asked for, by name.
        labels: the end of a yes-or-no question, by label.
        aliases: other names of a target's column, found in copies.
    """

    identity: tuple[str, ...] = ()
    properties: Mapping[str, Property] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """Names of the properties or labels."""
        return [*self.properties, *self.labels]


SETS = {
    "esol": MoleculeNetSet(
        identity=("Compound ID",),
        properties={"log_solubility": Property("water solubility", "log10(mol/L)", 2)},
        aliases={
            "log_solubility": (
                "measured log solubility in mols per litre",
                "measured log(solubility:mol/L)",
                "logSolubility",
                "ESOL",
            )
        },
    ),
    "freesolv": MoleculeNetSet(
        identity=("iupac",),
        properties={"hydration_free_energy": Property("hydration free energy", "kcal/mol", 2)},
        aliases={"hydration_free_energy": ("expt", "freesolv")},
    ),
    "lipophilicity": MoleculeNetSet(
        identity=("CMPD_CHEMBLID",),
        properties={"logd": Property("octanol-water logD at pH 7.4", "", 2)},
        aliases={"logd": ("exp", "lipo")},
    ),
    "bace_regression": MoleculeNetSet(
        identity=("CID",),
        properties={"pic50": Property("pIC50 against human beta-secretase 1 (BACE-1)", "", 2)},
    ),
    "bace": MoleculeNetSet(
        identity=("CID",), labels={"Class": "inhibit human beta-secretase 1 (BACE-1)"}
    ),
    "bbbp": MoleculeNetSet(
        # `num` is no id: the published file gives some numbers twice.
        labels={"BBBP": "cross the blood-brain barrier"},
        aliases={"BBBP": ("p_np",)},
    ),
    "clintox": MoleculeNetSet(
        labels={
            "FDA_APPROVED": "have the approval of the FDA as a drug",
            "CT_TOX": "fail clinical trials because of toxicity",
        }
    ),
    "hiv": MoleculeNetSet(
        labels={"HIV_active": "inhibit the replication of HIV"}, aliases={"HIV_active": ("HIV",)}
    ),
    "sider": MoleculeNetSet(
        labels=SIDER,
        aliases={label: (f"SIDER{i}",) for i, label in enumerate(SIDER, start=1)},
    ),
    "tox21": MoleculeNetSet(identity=("mol_id",), labels=TOX21),
}


def load_moleculenet(
    name: str, data: Paths | Mapping[str, Paths], *, streaming: bool = False, **files: Any
) -> Source:
    """A MoleculeNet data set for the task property_prediction or property_classification.

    Its columns are known by the published names and those of common copies, in any case: SMILES
    in `smiles` or `mol`, targets as in `SETS`. A row gives one example for each target that it has
    a value for; a gap gives none.

    Args:
        name: `"esol"` (log10(mol/L)), `"freesolv"` (kcal/mol), `"lipophilicity"` (logD),
            `"bace_regression"` (pIC50), `"bace"`, `"bbbp"`, `"clintox"`, `"hiv"`, `"sider"` (27
            labels) or `"tox21"` (12 labels).
        data: the CSV file (.csv or .csv.gz), or files that you have split, see `open_tables`.
        streaming: see `open_tables`.
        files: other arguments of `open_tables`.

    Raises:
        ValueError: the name is unknown or a column is missing.
        FileNotFoundError: there is no such file.
    """
    if name not in SETS:
        raise ValueError(f"MoleculeNet set {name!r} is unknown: use one of {', '.join(SETS)}.")
    chosen = SETS[name]
    splits = open_tables(data, streaming=streaming, **files)
    targets = {
        target: find_column(splits, (target, *chosen.aliases.get(target, ())), target)
        for target in chosen.targets
    }
    molecule = find_column(splits, MOLECULE, "molecule")
    identity = find_optional_column(splits, chosen.identity) or ROW
    # BACE has 590 columns of descriptors.
    needed = list(dict.fromkeys([molecule, identity, ROW, *targets.values()]))
    splits = {split: table.select_columns(needed) for split, table in splits.items()}
    read = partial(
        read_targets,
        molecule=molecule,
        identity=identity,
        targets=targets,
        classes=bool(chosen.labels),
    )
    if chosen.labels:
        task, settings = "property_classification", {"labels": dict(chosen.labels)}
    else:
        task, settings = "property_prediction", {"properties": dict(chosen.properties)}
    return Source(name, task, splits, read, settings, molecule_format="smiles")


def read_targets(
    row: Mapping[str, Any], molecule: str, identity: str, targets: Mapping[str, str], classes: bool
) -> list[RawExample]:
    """The examples of one row.

    Args:
        row: as in the file.
        molecule: the column of SMILES.
        identity: the column of ids.
        targets: the column of each property or label.
        classes: whether they are labels, with values 0 and 1.

    Raises:
        RowError: the molecule is missing, or a value is no number or, for a label, not 0 or 1.
    """
    smiles = needed_text(row, molecule)
    name = str(cell(row, identity) or row[ROW])
    examples = []
    for target, column in targets.items():
        value = cell(row, column)
        if value is None:
            continue
        found = number(value, column)
        if classes and found not in (0.0, 1.0):
            raise RowError(column, value, "is neither 0 nor 1, nor blank for unknown")
        options = {"label" if classes else "property": target}
        answer = int(found) if classes else found
        examples.append(RawExample(name, smiles, answer, options, (molecule, column)))
    return examples
