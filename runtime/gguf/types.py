"""The tensor types of ggml: number in the file, name, elements per block, bytes per block.

Source: `type_traits` in ggml/src/ggml.c and ggml-common.h of llama.cpp, as vendored in llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GgmlType:
    """`block` elements are stored together in `width` bytes."""

    number: int
    name: str
    block: int
    width: int

    @property
    def bits_per_weight(self) -> float:
        return self.width * 8 / self.block


_TABLE = (
    GgmlType(0, "F32", 1, 4),
    GgmlType(1, "F16", 1, 2),
    GgmlType(2, "Q4_0", 32, 18),
    GgmlType(3, "Q4_1", 32, 20),
    GgmlType(6, "Q5_0", 32, 22),
    GgmlType(7, "Q5_1", 32, 24),
    GgmlType(8, "Q8_0", 32, 34),
    GgmlType(9, "Q8_1", 32, 36),
    GgmlType(10, "Q2_K", 256, 84),
    GgmlType(11, "Q3_K", 256, 110),
    GgmlType(12, "Q4_K", 256, 144),
    GgmlType(13, "Q5_K", 256, 176),
    GgmlType(14, "Q6_K", 256, 210),
    GgmlType(15, "Q8_K", 256, 292),
    GgmlType(16, "IQ2_XXS", 256, 66),
    GgmlType(17, "IQ2_XS", 256, 74),
    GgmlType(18, "IQ3_XXS", 256, 98),
    GgmlType(19, "IQ1_S", 256, 50),
    GgmlType(20, "IQ4_NL", 32, 18),
    GgmlType(21, "IQ3_S", 256, 110),
    GgmlType(22, "IQ2_S", 256, 82),
    GgmlType(23, "IQ4_XS", 256, 136),
    GgmlType(24, "I8", 1, 1),
    GgmlType(25, "I16", 1, 2),
    GgmlType(26, "I32", 1, 4),
    GgmlType(27, "I64", 1, 8),
    GgmlType(28, "F64", 1, 8),
    GgmlType(29, "IQ1_M", 256, 56),
    GgmlType(30, "BF16", 1, 2),
    GgmlType(34, "TQ1_0", 256, 54),
    GgmlType(35, "TQ2_0", 256, 66),
    GgmlType(39, "MXFP4", 32, 17),
    GgmlType(40, "NVFP4", 64, 36),
    GgmlType(41, "Q1_0", 128, 18),
    GgmlType(42, "Q2_0", 64, 18),
)

BY_NUMBER = {entry.number: entry for entry in _TABLE}
BY_NAME = {entry.name: entry for entry in _TABLE}

# Types removed from ggml: the file is intact, but the engine can no longer read it.
REMOVED = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4 (in files of bitnet.cpp: I2_S)",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

# Types that only ik_llama.cpp has. Source: enum ggml_type in its ggml/include/ggml.h, 2025. A name that ends in _R4,
# _R8 or _R16 interleaves that many rows.
_ONLY_IK_LLAMA = """
    97 Q8_0_X4  98 Q8_1_X4  99 Q8_2_X4  133 Q6_0  134 IQ1_BN  135 IQ2_BN  136 Q8_K64  137 IQ2_K  138 IQ3_K  139 IQ4_K
    140 IQ5_K  141 IQ6_K  142 IQ2_TN  143 IQ1_TN  144 IQ4_KS  145 IQ2_KS  146 IQ4_KSS  147 Q8_K16  148 Q8_K32
    149 Q8_KR8  150 Q8_K128  151 Q8_KV  152 IQ5_KS  153 IQ2_KT  154 IQ3_KT  155 IQ4_KT  156 IQ3_KS  157 IQ2_KL
    158 IQ1_KT  202 Q4_0_R8  206 Q5_0_R4  208 Q8_0_R8  210 Q2_K_R4  211 Q3_K_R4  212 Q4_K_R4  213 Q5_K_R4  214 Q6_K_R4
    216 IQ2_XXS_R4  217 IQ2_XS_R4  218 IQ3_XXS_R4  219 IQ1_S_R4  220 IQ4_NL_R4  221 IQ3_S_R4  222 IQ2_S_R4
    223 IQ4_XS_R8  229 IQ1_M_R4  230 BF16_R16  233 Q6_0_R4  335 IQ2_BN_R4  337 IQ2_K_R4  338 IQ3_K_R4  339 IQ4_K_R4
    340 IQ5_K_R4  344 IQ4_KS_R4  352 IQ5_KS_R4  398 Q8_KV_R8  399 Q8_K_R8
"""
_words = _ONLY_IK_LLAMA.split()
ONLY_IK_LLAMA = {int(number): name for number, name in zip(_words[::2], _words[1::2], strict=True)}
IK_LLAMA = "ik_llama.cpp"

# Weights cannot have these types, because no kernel multiplies with them: I8 ... F64 hold numbers, Q8_1 and Q8_K
# activations.
NOT_FOR_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
