//! ggml's tensor types (`enum ggml_type` and the block structs in ggml-common.h) and llama.cpp's file types
//! (`enum llama_ftype`).

use std::fmt;

macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $block_len:literal, $block_bytes:literal;)*) => {
        /// The type of a tensor's blocks, under ggml's own name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[expect(non_camel_case_types, reason = "ggml's own names, in which the underscore tells types apart")]
        pub enum GgmlType {
            $(
                #[doc = concat!(
                    "Number ", $id, ": ", $block_bytes, " bytes for each block of ", $block_len, " elements."
                )]
                $variant,
            )*
            /// A number that is not in this list.
            Unknown(u32),
        }

        impl GgmlType {
            /// Every type known here.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The type of ggml's number `id`.
            pub fn from_id(id: u32) -> Self {
                match id {
                    $($id => Self::$variant,)*
                    _ => Self::Unknown(id),
                }
            }

            /// ggml's number of the type.
            pub fn id(self) -> u32 {
                match self {
                    $(Self::$variant => $id,)*
                    Self::Unknown(id) => id,
                }
            }

            /// ggml's name of the type, or `None` for an unknown one.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some(stringify!($variant)),)*
                    Self::Unknown(_) => None,
                }
            }

            /// Elements and bytes of a block, or `None` for an unknown type.
            pub fn block(self) -> Option<(u64, u64)> {
                match self {
                    $(Self::$variant => Some(($block_len, $block_bytes)),)*
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}

ggml_types! {
    F32 = 0, 1, 4;
    F16 = 1, 1, 2;
    Q4_0 = 2, 32, 18;
    Q4_1 = 3, 32, 20;
    Q5_0 = 6, 32, 22;
    Q5_1 = 7, 32, 24;
    Q8_0 = 8, 32, 34;
    Q8_1 = 9, 32, 36;
    Q2_K = 10, 256, 84;
    Q3_K = 11, 256, 110;
    Q4_K = 12, 256, 144;
    Q5_K = 13, 256, 176;
    Q6_K = 14, 256, 210;
    Q8_K = 15, 256, 292;
    IQ2_XXS = 16, 256, 66;
    IQ2_XS = 17, 256, 74;
    IQ3_XXS = 18, 256, 98;
    IQ1_S = 19, 256, 50;
    IQ4_NL = 20, 32, 18;
    IQ3_S = 21, 256, 110;
    IQ2_S = 22, 256, 82;
    IQ4_XS = 23, 256, 136;
    I8 = 24, 1, 1;
    I16 = 25, 1, 2;
    I32 = 26, 1, 4;
    I64 = 27, 1, 8;
    F64 = 28, 1, 8;
    IQ1_M = 29, 256, 56;
    BF16 = 30, 1, 2;
    Q4_0_4_4 = 31, 32, 18;
    Q4_0_4_8 = 32, 32, 18;
    Q4_0_8_8 = 33, 32, 18;
    TQ1_0 = 34, 256, 54;
    TQ2_0 = 35, 256, 66;
    IQ4_NL_4_4 = 36, 32, 18;
    IQ4_NL_4_8 = 37, 32, 18;
    IQ4_NL_8_8 = 38, 32, 18;
    MXFP4 = 39, 32, 17;
    NVFP4 = 40, 64, 36;
    Q1_0 = 41, 128, 18;
    Q2_0 = 42, 64, 18;
}

impl GgmlType {
    /// Bits for each element, the block's scales included, or `None` for an unknown type.
    pub fn bits_per_element(self) -> Option<f64> {
        let (len, bytes) = self.block()?;
        Some(bytes as f64 * 8.0 / len as f64)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.id()) {
            (Some(name), _) => f.pad(name),
            (None, id) => f.pad(&format!("type {id}")),
        }
    }
}

/// The name of a `general.file_type` as llama.cpp's quantizer takes it (`Q4_K_M`), or `None` for a number that is not
/// known or says that the type was guessed (1024).
pub fn file_type_label(file_type: u32) -> Option<&'static str> {
    Some(match file_type {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        4 => "Q4_1_SOME_F16",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        33 => "Q4_0_4_4",
        34 => "Q4_0_4_8",
        35 => "Q4_0_8_8",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}
