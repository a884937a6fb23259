//! The image store as commands use it: where it is, whom it trusts, who is told of progress.

use crate::args::{Global, TrustArgs};
use crate::context::{Context, data_path};
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::data::now;
use cofferdam_model::ImageRef;
use cofferdam_model::image::{Digest, Reference};
use cofferdam_trust::content::{Content, ImageRecord};
use cofferdam_trust::oci::Platform;
use cofferdam_trust::pull::{Progress, PullError, Puller, Silent};
use cofferdam_trust::registry::{Access, Credentials};
use cofferdam_trust::verify::{Options, Rule, TrustFile, Verifier};
use cofferdam_trust::{VerifiedImage, layout, pack, resolve, stored_image};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Of which file an image of this program was made.
const PROGRAM_LABEL: &str = "cofferdam.program";
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// The store with its rules.
pub struct Images {
    /// The store.
    pub content: Content,
    /// How registries are reached.
    pub access: Access,
    /// Who decides.
    pub verifier: Verifier,
    progress: Box<dyn Progress>,
}

impl Images {
    /// Of these options. `accept`: tags may have moved.
    pub fn open(data: &Path, trust: &TrustArgs, accept: bool, quiet: bool) -> Result<Self, Failure> {
        let mut rules = TrustFile::load(&trust.trust.clone().unwrap_or_else(trust_path))?;
        if let Some(root) = &trust.trust_root {
            rules.trust_root = Some(std::path::absolute(root)?);
        }
        if trust.skip_verify {
            // Loud on purpose, whatever is quiet.
            crate::output::note!("cofferdam: WARNING: --skip-verify: nothing vouches for the image; this is recorded with it");
        }
        let access = Access { registries: rules.registries.clone(), credentials: Credentials::of_user() };
        let options = Options { require_signature: trust.require_signature, skip: trust.skip_verify, accept };
        let verifier = Verifier::new(rules, options, now().as_second());
        let drawn = !quiet && std::io::stderr().is_terminal();
        let progress: Box<dyn Progress> = if drawn { Box::<Drawn>::default() } else { Box::new(Silent) };
        Ok(Self { content: Content::of(data), access, verifier, progress })
    }

    /// What pulls.
    pub fn puller(&self) -> Puller<'_> {
        Puller {
            content: &self.content,
            access: &self.access,
            verifier: &self.verifier,
            platform: Platform::here(),
            progress: &*self.progress,
            now: now().as_second(),
        }
    }

    /// Fetches an image.
    pub fn pull(&self, reference: &Reference) -> Result<ImageRecord, Failure> {
        let record = self.puller().pull(reference).map_err(|error| match error {
            // What a registry says does not name the image in full.
            PullError::Registry(error) => Failure::new(FAILED, "registry", format!("image {reference}: {error}")),
            other => other.into(),
        })?;
        // What the disk does not have yet it gets now, so that a reboot or a power cut costs nothing.
        self.content.settle()?;
        Ok(record)
    }

    /// This program as an image, at `/cofferdam`: that of the store, if it was made of the same file.
    pub fn own_program(&self, reference: &Reference) -> Result<ImageRecord, Failure> {
        use std::os::unix::fs::MetadataExt;
        let file = Path::new("/proc/self/exe");
        let found = std::fs::metadata(file)?;
        let mark = format!("{}-{}-{}.{}", found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let same = |record: &ImageRecord| record.config.labels.get(PROGRAM_LABEL) == Some(&mark);
        if let Some(record) = self.content.record(reference).filter(same) {
            return Ok(record);
        }
        let labels = BTreeMap::from([(PROGRAM_LABEL.to_owned(), mark.clone())]);
        Ok(pack::program(&self.puller(), file, "cofferdam", reference, labels)?)
    }

    fn pulled(&self, reference: &Reference) -> Result<(ImageRecord, VerifiedImage), Failure> {
        let record = self.pull(reference)?;
        let image = stored_image(&self.content, &record)?;
        Ok((record, image))
    }

    /// An image of the store, or fetched into it; verified by the rules of now.
    pub fn find(&self, reference: &Reference) -> Result<(ImageRecord, VerifiedImage), Failure> {
        let Some(mut record) = self.content.record(reference) else { return self.pulled(reference) };
        let image = match stored_image(&self.content, &record) {
            Ok(image) => image,
            Err(_) => match self.puller().repair(&record) {
                Ok(repaired) => {
                    record = repaired;
                    stored_image(&self.content, &record)?
                }
                // What was made here is nobody else's to give, whoever has an image of that name.
                Err(error) if matches!(record.verified.rule, Rule::Built | Rule::Loaded) => return Err(error.into()),
                Err(_) => return self.pulled(reference),
            },
        };
        let verified = self.verifier.still(&self.content, &record)?;
        if verified != record.verified {
            record.verified = verified;
            self.content.write_record(&record)?;
        }
        self.content.touch(reference);
        Ok((record, image))
    }
}

/// The image that a sandbox starts from. A registry's is fetched if it is not here.
pub fn start_from(context: &Context, image: &ImageRef, trust: &TrustArgs) -> Result<VerifiedImage, Failure> {
    let data = context.data.path();
    match image {
        ImageRef::Registry(reference) => Ok(Images::open(data, trust, false, context.global.quiet)?.find(reference)?.1),
        ImageRef::Directory(path) if layout::is_layout(path) => {
            let images = Images::open(data, trust, false, context.global.quiet)?;
            let name = layout_name(path)?;
            let records = layout::load(&images.puller(), path, Some(&name))?;
            let record = records.into_iter().next().ok_or_else(|| Failure::usage(format!("{} holds no image", path.display())))?;
            Ok(stored_image(&images.content, &record)?)
        }
        _ => Ok(resolve(image, data)?),
    }
}

/// What an OCI layout is called in the store when it is run where it lies.
fn layout_name(path: &Path) -> Result<Reference, Failure> {
    let whole = path.canonicalize()?;
    let digest = cofferdam_trust::content::sha256(whole.as_os_str().as_encoded_bytes());
    format!("localhost/layout/{}", digest.short()).parse().map_err(|error| Failure::usage(format!("{error}")))
}

/// Fetches an image before something is started in the background, so that who waits sees why.
pub fn ensure(global: &Global, image: &ImageRef, trust: &TrustArgs) -> Result<(), Failure> {
    if matches!(image, ImageRef::Registry(_)) {
        let context = Context::open(global.clone())?;
        start_from(&context, image, trust)?;
    }
    Ok(())
}

fn trust_path() -> PathBuf {
    configuration("cofferdam/trust.yaml")
}

/// A file of the configuration: root's is in /etc, another user's in the home directory.
pub fn configuration(name: &str) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return Path::new("/etc").join(name);
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    base.unwrap_or_else(|| PathBuf::from("/etc")).join(name)
}

/// The store of a command that needs no rules.
pub fn content(global: &Global) -> Content {
    Content::of(&data_path(global))
}

/// One line that is drawn again and again.
#[derive(Default)]
struct Drawn {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layers: usize,
    done: usize,
    bytes: u64,
    total: u64,
    drawn: Option<Instant>,
}

impl Drawn {
    fn change(&self, change: impl FnOnce(&mut State)) {
        const MEBIBYTE: u64 = 1 << 20;
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut state);
        let ended = state.done == state.layers;
        if state.layers == 0 || !ended && state.drawn.is_some_and(|at| at.elapsed() < DRAW_EVERY) {
            return;
        }
        state.drawn = Some(Instant::now());
        let (bytes, total) = (state.bytes / MEBIBYTE, state.total.div_ceil(MEBIBYTE));
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r\x1b[K{} of {} layers, {bytes} of {total} MiB", state.done, state.layers);
        let _ = if ended { write!(out, "\r\x1b[K") } else { Ok(()) };
        let _ = out.flush();
    }
}

impl Progress for Drawn {
    fn begins(&self, layers: &[(Digest, u64)]) {
        self.change(|state| {
            *state = State { layers: layers.len(), total: layers.iter().map(|(_, size)| size).sum(), ..State::default() };
        });
    }

    fn more(&self, _: &Digest, bytes: u64) {
        self.change(|state| state.bytes += bytes);
    }

    fn done(&self, _: &Digest) {
        self.change(|state| state.done += 1);
    }
}
