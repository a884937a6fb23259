//! Images of the store, given to the daemon.

use crate::daemon::{Daemon, failed, is_missing, said};
use cofferdam_engine::EngineError;
use cofferdam_model::image::{Digest, Reference};
use cofferdam_trust::content::{Content, ImageRecord};
use cofferdam_trust::layout;
use futures_util::StreamExt;
use std::io::{self, Read, Seek};

const PIECE: usize = 1 << 20;

/// An image that the daemon has.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The digest that it knows it by.
    pub id: String,
    /// Whether it was given to it just now.
    pub given: bool,
}

impl Daemon {
    /// What the daemon calls an image that it has: by the digest of its configuration; where it keeps images in containerd's store, by that of a
    /// manifest of its own, which is known by our name and has the same layers.
    async fn name_of(&self, record: &ImageRecord) -> Result<Option<String>, EngineError> {
        let mut names = [record.config_digest.to_string(), own_name(&record.config_digest)];
        if self.facts.containerd_store {
            names.reverse();
        }
        for name in names {
            match self.client.inspect_image(&name).await {
                Ok(found) => {
                    let layers = found.root_fs.and_then(|root| root.layers).unwrap_or_default();
                    let same = layers.iter().map(String::as_str).eq(record.layers.iter().map(|layer| layer.diff_id.as_str()));
                    if let (true, Some(id)) = (same, found.id) {
                        return Ok(Some(id));
                    }
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed("look for the image", error)),
            }
        }
        Ok(None)
    }

    /// Gives it an image, unless it has it. It is known there by a digest, and by a name of ours that nobody else uses.
    pub async fn load(&self, content: &Content, record: &ImageRecord) -> Result<Loaded, EngineError> {
        if let Some(id) = self.name_of(record).await? {
            return Ok(Loaded { id, given: false });
        }
        let host = |error| EngineError::host(format!("give image {} to the daemon", record.reference), error);
        let name: Reference = own_name(&record.config_digest).parse().map_err(|error| host(io::Error::other(error)))?;
        let named = ImageRecord { reference: name, ..record.clone() };
        let directory = content.directory("partial").map_err(|error| host(io::Error::other(error)))?;
        let mut file = tempfile::tempfile_in(directory).map_err(host)?;
        layout::save(content, &named, io::BufWriter::with_capacity(PIECE, &mut file)).map_err(|error| host(io::Error::other(error)))?;
        file.rewind().map_err(host)?;
        let pieces = futures_util::stream::iter(std::iter::from_fn(move || {
            let mut piece = vec![0; PIECE];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(read) => {
                    piece.truncate(read);
                    Some(Ok(piece.into()))
                }
                Err(error) => Some(Err(error)),
            }
        }));
        let options = bollard::query_parameters::ImportImageOptionsBuilder::default().quiet(true).build();
        let mut answers = Box::pin(self.client.import_image(options, bollard::body_try_stream(pieces), None));
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| failed("load the image", error))?;
            if let Some(detail) = answer.error_detail {
                return Err(said("load the image", detail.message.unwrap_or_default()));
            }
        }
        match self.name_of(record).await? {
            Some(id) => Ok(Loaded { id, given: true }),
            None => {
                Err(host(io::Error::other("the daemon has made something else of it: no image there has its configuration or its layers")))
            }
        }
    }
}

/// What the image is called there.
pub fn own_name(config: &Digest) -> String {
    format!("localhost/cofferdam/{}:image", config.short())
}
