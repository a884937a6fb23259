//! Images of the store, given to the daemon.

use crate::daemon::{Daemon, failed, is_missing, said};
use cofferdam_engine::EngineError;
use cofferdam_model::image::{Digest, Reference};
use cofferdam_trust::content::{Content, ImageRecord};
use cofferdam_trust::layout;
use futures_util::StreamExt;
use std::io::{self, Read, Seek};

const PIECE: usize = 1 << 20;

impl Daemon {
    /// Whether the daemon has the image with this configuration.
    pub async fn has(&self, config: &Digest) -> Result<bool, EngineError> {
        match self.client.inspect_image(config.as_str()).await {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(failed("look for the image", error)),
        }
    }

    /// Gives it an image, unless it has it. It is known there by its digest, and by a name of ours that nobody else uses.
    pub async fn load(&self, content: &Content, record: &ImageRecord) -> Result<bool, EngineError> {
        if self.has(&record.config_digest).await? {
            return Ok(false);
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
        if self.has(&record.config_digest).await? {
            return Ok(true);
        }
        Err(host(io::Error::other("the daemon keeps it under another digest than ours; it may convert images (the containerd store)")))
    }
}

/// What the image is called there.
pub fn own_name(config: &Digest) -> String {
    format!("localhost/cofferdam/{}:image", config.short())
}
