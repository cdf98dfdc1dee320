//! Several engines as one: each request goes to the first that understands its language.

use std::sync::Arc;

use super::{Capabilities, Decoder, Engine, EngineError, Request, Transcript};

/// Engines in the order they are asked.
pub struct Several {
    engines: Vec<Arc<dyn Engine>>,
    capabilities: Capabilities,
}

impl Several {
    /// None without any. Made once in a process: what is known of them together is never freed.
    #[must_use]
    pub fn of(engines: Vec<Arc<dyn Engine>>) -> Option<Self> {
        let each = || engines.iter().map(|engine| engine.capabilities());
        let mut languages: Vec<&'static str> = Vec::new();
        for language in each().flat_map(|it| it.languages) {
            if !languages.contains(language) {
                languages.push(language);
            }
        }
        let capabilities = Capabilities {
            name: String::leak(each().map(|it| it.name).collect::<Vec<_>>().join("+")),
            languages: Vec::leak(languages),
            max_samples: each().map(|it| it.max_samples).min()?,
            batch_invariant: each().all(|it| it.batch_invariant),
        };
        Some(Self { engines, capabilities })
    }
}

impl Engine for Several {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(SeveralDecoder { engines: self.engines.iter().map(|it| (Arc::clone(it), it.decoder())).collect() })
    }
}

struct SeveralDecoder {
    engines: Vec<(Arc<dyn Engine>, Box<dyn Decoder>)>,
}

impl Decoder for SeveralDecoder {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        let engine = self.engines.iter_mut().find(|it| it.0.capabilities().understands(request.language));
        match engine {
            Some((_, decoder)) => decoder.decode(request),
            None => Err(EngineError::Model(format!("no engine understands {:?}", request.language))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::engine::Kind;

    struct Made(Capabilities);

    impl Engine for Made {
        fn capabilities(&self) -> &Capabilities {
            &self.0
        }

        fn decoder(&self) -> Box<dyn Decoder> {
            Box::new(Made(self.0.clone()))
        }
    }

    impl Decoder for Made {
        fn decode(&mut self, _: &Request<'_>) -> Result<Transcript, EngineError> {
            Ok(Transcript { text: self.0.name.to_owned(), ..Transcript::default() })
        }
    }

    #[test]
    fn the_language_chooses_the_engine() {
        let made = |name, languages, max_samples| {
            Arc::new(Made(Capabilities { name, languages, max_samples, batch_invariant: true })) as Arc<dyn Engine>
        };
        let several = Several::of(vec![made("one", &["en"], 9), made("many", &["de", "en"], 5)]).unwrap();
        let together =
            Capabilities { name: "one+many", languages: &["en", "de"], max_samples: 5, batch_invariant: true };
        assert_eq!(several.capabilities(), &together);
        let mut decoder = several.decoder();
        let mut heard = |language| {
            let never = AtomicBool::new(false);
            let request = Request {
                samples: &[],
                voice: &[],
                kind: Kind::Final,
                language,
                draft: &[],
                memory: None,
                cancelled: &never,
            };
            decoder.decode(&request).map(|it| it.text).map_err(|it| it.to_string())
        };
        assert_eq!(heard("en-US").unwrap(), "one");
        assert_eq!(heard("DE_at").unwrap(), "many");
        assert_eq!(heard("fr").unwrap_err(), "the model failed: no engine understands \"fr\"");
        assert!(Several::of(Vec::new()).is_none());
    }
}
