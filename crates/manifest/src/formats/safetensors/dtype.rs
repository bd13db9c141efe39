//! The element types of the safetensors library, up to its 0.6 with the sub-byte ones.

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $bits:literal;)*) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[expect(non_camel_case_types, reason = "the format's own names, in which the underscore tells types apart")]
        pub enum Dtype {
            $($(#[$doc])* $variant,)*
            /// A type that is not in this list, as the file spells it.
            Unknown(Box<str>),
        }

        impl Dtype {
            /// Every type known here.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The type that a file spells `name`; the format's names are in capitals.
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Unknown(name.into()),
                }
            }

            /// The name as the file spells it.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(name) => name,
                }
            }

            /// Bits for each element, or `None` for an unknown type.
            pub fn bits(&self) -> Option<u64> {
                match self {
                    $(Self::$variant => Some($bits),)*
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}

dtypes! {
    /// A boolean in a byte.
    Bool = "BOOL", 8;
    /// Four-bit float, two to a byte (MXFP4, NVFP4).
    F4 = "F4", 4;
    /// Six-bit float with two exponent bits.
    F6_E2M3 = "F6_E2M3", 6;
    /// Six-bit float with three exponent bits.
    F6_E3M2 = "F6_E3M2", 6;
    /// Unsigned byte; also the carrier of packed formats.
    U8 = "U8", 8;
    /// Signed byte.
    I8 = "I8", 8;
    /// Eight-bit float with four exponent bits.
    F8_E4M3 = "F8_E4M3", 8;
    /// The same without infinities and negative zero.
    F8_E4M3FNUZ = "F8_E4M3FNUZ", 8;
    /// Eight-bit float with five exponent bits.
    F8_E5M2 = "F8_E5M2", 8;
    /// The same without infinities and negative zero.
    F8_E5M2FNUZ = "F8_E5M2FNUZ", 8;
    /// Eight-bit exponent alone: the scales of the MX formats.
    F8_E8M0 = "F8_E8M0", 8;
    /// Signed, two bytes.
    I16 = "I16", 16;
    /// Unsigned, two bytes.
    U16 = "U16", 16;
    /// IEEE half precision.
    F16 = "F16", 16;
    /// bfloat16.
    BF16 = "BF16", 16;
    /// Signed, four bytes.
    I32 = "I32", 32;
    /// Unsigned, four bytes; MLX packs quantized weights into these.
    U32 = "U32", 32;
    /// IEEE single precision.
    F32 = "F32", 32;
    /// Two single-precision floats.
    C64 = "C64", 64;
    /// IEEE double precision.
    F64 = "F64", 64;
    /// Signed, eight bytes.
    I64 = "I64", 64;
    /// Unsigned, eight bytes.
    U64 = "U64", 64;
}

impl Dtype {
    /// The name in small letters, as records and people write it: `f32`, `bf16`, `f8_e4m3`.
    pub fn label(&self) -> String {
        self.name().to_ascii_lowercase()
    }

    /// Whether it is a float, of any width. Complex numbers and unknown types are not.
    pub fn is_float(&self) -> bool {
        !matches!(self, Self::Unknown(_)) && (self.name().starts_with('F') || *self == Self::BF16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
