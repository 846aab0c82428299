# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Hand-made answers, what they score, and why.

`strict` and `published` hold a digit each for: valid, exact_match, exact_match_no_stereo,
exact_match_inchi. Under `published` a row that is dropped from the means reads `0---`, and the
exact match is that of the InChIs without stereo.
"""

from typing import NamedTuple


class Case(NamedTuple):
    """One prediction beside the truth."""

    prediction: str | None
    reference: str
    strict: str
    published: str
    why: str


RIGHT, WRONG = "1111", "1000"
INVALID, DROPPED = "0000", "0---"
RING_OF_CATECHIN = "OC1Cc2c(O)cc(O)cc2OC1c1ccc(O)c(O)c1"

SMILES = [
    # Spellings of the same molecule
    Case("CCO", "CCO", RIGHT, RIGHT, "the same text"),
    Case("OCC", "CCO", RIGHT, RIGHT, "written from the other end"),
    Case(" CCO\n", "CCO", RIGHT, RIGHT, "white space around an answer is stripped"),
    Case("C(O)C", "CCO", RIGHT, RIGHT, "a branch instead of a chain"),
    Case("C-C-O", "CCO", RIGHT, RIGHT, "single bonds written out"),
    Case("[CH3][CH2][OH]", "CCO", RIGHT, RIGHT, "brackets around ordinary atoms"),
    Case("[H]OCC", "CCO", RIGHT, RIGHT, "an explicit hydrogen"),
    Case("[H]C([H])([H])C([H])([H])O[H]", "CCO", RIGHT, RIGHT, "all hydrogens explicit"),
    Case("C1=CC=CC=C1", "c1ccccc1", RIGHT, RIGHT, "Kekulé spelling of benzene"),
    Case("c1:c:c:c:c:c:1", "c1ccccc1", RIGHT, RIGHT, "aromatic bonds written out"),
    Case("C%12CCCCC%12", "C1CCCCC1", RIGHT, RIGHT, "two-digit ring closure"),
    Case("C1CCCC2C1CCCC2", "C12CCCCC1CCCC2", RIGHT, RIGHT, "ring opened at another bond"),
    Case("C1.C1", "CC", RIGHT, RIGHT, "a ring closure across a dot is a bond"),
    Case("O=S(=O)(O)O", "OS(O)(=O)=O", RIGHT, RIGHT, "sulfuric acid from another atom"),
    # Several components
    Case("CCO.O", "O.CCO", RIGHT, RIGHT, "the order of components is free"),
    Case("[Na+].[Cl-]", "[Cl-].[Na+]", RIGHT, RIGHT, "ions of a salt in another order"),
    Case("CC(=O)[O-].[Na+]", "CC(=O)O[Na]", "1001", "1101", "InChI breaks bonds to metals"),
    Case("[NH4+].[Cl-]", "N.Cl", "1001", "1101", "InChI moves the proton of a salt"),
    Case("CCO", "CCO.O", WRONG, WRONG, "a component is missing"),
    Case("CCO.O.O", "CCO.O", WRONG, WRONG, "a component too many counts: O.O is not O"),
    Case("CCO.CCO", "CCO", WRONG, WRONG, "the right molecule twice is not the right answer"),
    Case("CCO.CCO", "CCO.CCO", RIGHT, RIGHT, "a component that the truth has twice"),
    Case("CCO.", "CCO", INVALID, DROPPED, "a full stop, which makes an empty component"),
    # Tautomers, charges, radicals
    Case("OC1=CC=CC=N1", "O=C1C=CC=CN1", "1001", "1101", "tautomers are one InChI, two SMILES"),
    Case("CC(O)=CC", "CC(=O)CC", WRONG, WRONG, "enol and ketone: standard InChI keeps them apart"),
    Case("Cc1c[nH]cn1", "Cc1cnc[nH]1", "1001", "1101", "imidazole's mobile hydrogen"),
    Case("CC(=O)[O-]", "CC(=O)O", WRONG, WRONG, "a base is not its acid"),
    Case("C[N+](=O)[O-]", "CN(=O)=O", RIGHT, RIGHT, "RDKit normalises the nitro group"),
    Case("[NH3+]CC(=O)[O-]", "NCC(=O)O", "1001", "1101", "zwitterion: InChI moves protons"),
    Case("[CH3]", "C", WRONG, WRONG, "a methyl radical is not methane"),
    Case("[C]", "C", WRONG, WRONG, "in SMILES a bare [C] has no hydrogen"),
    # Stereo
    Case("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "1010", RIGHT, "the other enantiomer"),
    Case("CC(N)C(=O)O", "C[C@H](N)C(=O)O", "1010", RIGHT, "stereo left out"),
    Case("C[C@H](N)C(=O)O", "CC(N)C(=O)O", "1010", RIGHT, "stereo that the truth does not state"),
    Case(
        "N[C@@H](C)C(=O)O",
        "C[C@H](N)C(=O)O",
        RIGHT,
        RIGHT,
        "the same centre, other neighbour order",
    ),
    Case("C/C=C/C", "C/C=C\\C", "1010", RIGHT, "E instead of Z"),
    Case("C\\C=C\\C", "C/C=C/C", RIGHT, RIGHT, "both marks turned: the same double bond"),
    Case("CC=CC", "C/C=C/C", "1010", RIGHT, "double-bond stereo left out"),
    Case("C[C@H](C)O", "CC(C)O", RIGHT, RIGHT, "isopropanol has no centre: the mark says nothing"),
    Case("C/C=C(/C)C", "CC=C(C)C", RIGHT, RIGHT, "no stereo at a double bond with equal ends"),
    Case("[H]/N=C/F", "N=CF", "1010", RIGHT, "the hydrogen that carries the stereo goes with it"),
    Case("C[C@H]1CC[C@H](O)CC1", "C[C@H]1CC[C@@H](O)CC1", "1010", RIGHT, "cis and trans in a ring"),
    # Isotopes and atom maps
    Case("[2H]C(Cl)(Cl)Cl", "ClC(Cl)Cl", WRONG, RIGHT, "published drops isotopes with the stereo"),
    Case("[13CH4]", "C", WRONG, RIGHT, "carbon-13"),
    Case("[CH3:1][CH2:2][OH:3]", "CCO", RIGHT, RIGHT, "atom maps are cleared"),
    Case("CCO", "[CH3:7][CH2:2]O", RIGHT, RIGHT, "also those of the truth"),
    Case("[CH3:1][C@H]([CH3:2])O", "CC(C)O", RIGHT, RIGHT, "a centre that only the maps made"),
    # Single atoms, metals, wildcards
    Case("C", "C", RIGHT, RIGHT, "methane is a molecule"),
    Case("O", "C", WRONG, WRONG, "another single atom"),
    Case("[Pd]", "[Pd]", RIGHT, RIGHT, "a catalyst"),
    Case("[H][H]", "[H][H]", RIGHT, RIGHT, "hydrogen"),
    Case("[H][H]", "[HH]", "1001", "1101", "two spellings of hydrogen that RDKit keeps apart"),
    Case("C*", "*C", RIGHT, RIGHT, "a wildcard atom, which InChI cannot spell"),
    Case("CC*", "CO*", WRONG, WRONG, "two empty InChIs are no match"),
    Case("*CC(*)O", "*CCO*", WRONG, WRONG, "nor are they at equal formulas"),
    Case("CN->[Fe]", "[Fe]<-NC", RIGHT, RIGHT, "a dative bond from either end"),
    Case("[CH3-]->[Fe+]", "C[Fe]", WRONG, WRONG, "a dative bond is no covalent one"),
    # Near misses
    Case("CCN", "CCO", WRONG, WRONG, "another element"),
    Case("CCCO", "CC(C)O", WRONG, WRONG, "an isomer"),
    Case("C1CCCCC1", "c1ccccc1", WRONG, WRONG, "cyclohexane"),
    Case("CCO" * 3000, "CCO", WRONG, WRONG, "a loop of 9,000 characters that still parses"),
    Case(RING_OF_CATECHIN + ".", RING_OF_CATECHIN, INVALID, DROPPED, "a dot at the end"),
    # No molecule
    Case(None, "CCO", INVALID, DROPPED, "no answer"),
    Case("", "CCO", INVALID, DROPPED, "an empty answer is no molecule, although RDKit reads it"),
    Case(" \t\n", "CCO", INVALID, DROPPED, "nothing but blanks"),
    Case("C C O", "CCO", INVALID, DROPPED, "inner blanks: RDKit would read methane named C O"),
    Case("CCO is the product", "CCO", INVALID, DROPPED, "prose behind: RDKit would read the CCO"),
    Case("The product is CCO", "CCO", INVALID, DROPPED, "prose before"),
    Case("CCO\nCCO", "CCO", INVALID, DROPPED, "a second line"),
    Case("CCO</s>", "CCO", INVALID, DROPPED, "an end token left in the text"),
    Case("`CCO`", "CCO", INVALID, DROPPED, "Markdown"),
    Case("CCO>>CC=O", "CC=O", INVALID, DROPPED, "a reaction"),
    Case("ethanol", "CCO", INVALID, DROPPED, "a name"),
    Case("InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3", "CCO", INVALID, DROPPED, "not the notation asked"),
    Case("C1CC", "CCO", INVALID, DROPPED, "an open ring"),
    Case("CC(O", "CCO", INVALID, DROPPED, "an open branch"),
    Case("C(C)(C)(C)(C)C", "CCO", INVALID, DROPPED, "five bonds at a carbon"),
    Case("c1cccc1", "C1=CCC=C1", INVALID, DROPPED, "a ring that cannot be aromatic"),
    Case("CCO" * 3000 + "(", "CCO", INVALID, DROPPED, "a loop of 9,000 characters cut off"),
]

SELFIES = [
    Case("[C][C][O]", "[C][C][O]", RIGHT, RIGHT, "the same text"),
    Case("[O][C][C]", "[C][C][O]", RIGHT, RIGHT, "written from the other end"),
    Case("[C]", "[C]", RIGHT, RIGHT, "in SELFIES a bare [C] is methane"),
    Case("[Na+1].[Cl-1]", "[Cl-1].[Na+1]", RIGHT, RIGHT, "components in another order"),
    Case("[C][C@H1][Branch1][C][N][F]", "[C][C@@H1][Branch1][C][N][F]", "1010", RIGHT, "stereo"),
    Case("[C][C][O][nop]", "[C][C][O]", RIGHT, RIGHT, "[nop] stands for nothing"),
    Case("[C][C][O][Ring1][C]", "[C][C][O]", WRONG, WRONG, "garbage decodes to another molecule"),
    Case("[C][C][O][Branch1]", "[C][C][O]", RIGHT, RIGHT, "a branch cut off is ignored"),
    Case("[O][=C][=O][F][F][C]", "[O][=C][=O]", RIGHT, RIGHT, "what finds no free bond is dropped"),
    Case("[C][C][O] is it", "[C][C][O]", INVALID, DROPPED, "prose behind"),
    Case("[C][C][O]</s>", "[C][C][O]", INVALID, DROPPED, "an end token left in the text"),
    Case("It is:[C][C][O]", "[C][C][O]", INVALID, DROPPED, "prose before, with a blank"),
    Case("Answer:[C][C][O]", "[C][C][O]", INVALID, DROPPED, "prose before, which selfies drops"),
    Case("[C][C][O", "[C][C][O]", INVALID, DROPPED, "a token cut off"),
    Case("[C][Foo][O]", "[C][C][O]", INVALID, DROPPED, "an unknown token"),
    Case("CCO", "[C][C][O]", INVALID, DROPPED, "a SMILES, of which selfies makes no atom"),
    Case("[nop]", "[C][C][O]", INVALID, DROPPED, "no atom at all"),
    Case("[Ring1][Branch1]", "[C][C][O]", INVALID, DROPPED, "garbage without an atom"),
    Case(None, "[C][C][O]", INVALID, DROPPED, "no answer"),
    Case("", "[C][C][O]", INVALID, DROPPED, "empty: InstructMol's script counts it as valid"),
]

CASES = [("smiles", case) for case in SMILES] + [("selfies", case) for case in SELFIES]
