//! [`Builder`]: how a namespace is opened.

use std::time::Duration;

use dsm_core::namespace::NamespaceConfig;

use crate::error::Error;
use crate::error::kind::ErrorKind;
use crate::name;
use crate::platform::Platform;
use crate::process;
use crate::registry::Registry;

/// Opens a namespace with other than the default settings.
///
/// Limits and sizes are those of a namespace's creation, and are ignored when it exists already.
#[must_use]
pub struct Builder {
    namespace: String,
    mode: u32,
    config: NamespaceConfig,
    initialiser_patience: Option<Duration>,
    platform: Option<Box<dyn Platform>>,
}

impl Builder {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            mode: 0o600,
            config: NamespaceConfig::default(),
            initialiser_patience: None,
            platform: None,
        }
    }

    /// Permission bits of what is created: from 0600, this user only, which is the default, to 0777.
    /// What exists and may be written by more is refused.
    ///
    /// Windows has no such bits: there `open` refuses a mode that lets others in, who are listed in
    /// the backend's options instead
    /// ([`SharedMemory::with_options`](crate::system::SharedMemory::with_options)).
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Whether the namespace outlives the last process that leaves; it does not by default.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.config.persistent = persistent;
        self
    }

    /// Bytes of the main region: memory set aside once, from which segments are made without a
    /// system call. None by default, at most 8 TiB less a page.
    #[doc(alias = "min_dynamic_shared_memory")]
    pub fn main_region(mut self, bytes: usize) -> Self {
        self.config.main_region = bytes;
        self
    }

    /// Threads, of all processes, that can use the namespace at once; 384 by default, from 3 to
    /// 65,535. More than the default makes every lock longer.
    pub fn max_participants(mut self, participants: u32) -> Self {
        self.config.max_participants = participants;
        self
    }

    /// Processes that can be attached at once; 128 by default, from 1 to 4,096.
    pub fn max_processes(mut self, processes: u32) -> Self {
        self.config.max_processes = processes;
        self
    }

    /// Segments that can exist at once, those of areas and tables included; 1,024 by default, from
    /// 1 to 4,096.
    pub fn max_segments(mut self, segments: u32) -> Self {
        self.config.max_segments = segments;
        self
    }

    /// How long `open` waits for another process that is opening or leaving; ten seconds by
    /// default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.config.patience = patience;
        self
    }

    /// How long a call waits for another process's initialiser, as long as that process lives.
    /// For ever by default. The first opener in a process decides.
    pub fn initialiser_patience(mut self, patience: Duration) -> Self {
        self.initialiser_patience = Some(patience);
        self
    }

    /// Where the namespace lives, instead of the system's default.
    pub fn provider<P: Platform>(mut self, platform: P) -> Self {
        self.platform = Some(Box::new(platform));
        self
    }

    /// Opens the namespace, or creates it. A process that has it open gets another handle to the
    /// same.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing is left behind.
    pub fn open(self) -> Result<Registry, Error> {
        let (platform, settings) = self.into_parts()?;
        process::open(&*platform, settings)
    }

    pub(crate) fn into_parts(self) -> Result<(Box<dyn Platform>, process::Settings), Error> {
        name::check_namespace(&self.namespace)?;
        let mode = self.mode;
        if mode & 0o600 != 0o600 || mode > 0o777 {
            let reason = format!(
                "it can't be {mode:04o}: it must be from 0600 to 0777, and let the owner read and \
                 write"
            );
            return Err(ErrorKind::InvalidOption { what: "mode", reason }.into());
        }
        let Some(platform) = self.platform.or_else(crate::platform::default) else {
            return Err(ErrorKind::NoBackend.into());
        };
        let settings = process::Settings {
            namespace: self.namespace,
            mode: self.mode,
            config: self.config,
            initialiser_patience: self.initialiser_patience,
        };
        Ok((platform, settings))
    }
}
