//! Images of the node, by flint-bundle's library on threads that may wait.
//!
//! ```text
//!  ensure ─> here, and the policy is content ─────────────────────────────> record
//!        └─> a pull of this name is under way: its result ─> (parallel) pull ─> record, told to all who wait
//! ```
//!
//! It must not decide when to try again: failures go to the pod's worker, whose reconciler has the pauses.

mod bundle;
mod seccomp;

pub(crate) use bundle::limits;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use flint_bundle::image::Platform;
use flint_bundle::registry::{self, Credentials, Settings};
use flint_bundle::store::{Collected, ImageRecord, Policy, Store, trim};
use flint_bundle::{Fetch, Progress, Reference, Silent};
use tokio::sync::{Semaphore, watch};

use crate::desired::PullPolicy;
use crate::node::ImageConfig;
use crate::observed::Reason;
use crate::scheduler::{HealthCheck, NotHere};

/// The images of the node.
#[derive(Debug, Clone)]
pub struct Images {
    store: Store,
    settings: Settings,
    pulls: Arc<Pulls>,
    policy: Policy,
    /// The folder of filters of system calls.
    profiles: PathBuf,
}

#[derive(Debug)]
struct Pulls {
    parallel: Semaphore,
    /// By name and credentials: what is not given by the same secret is not shared.
    under_way: Mutex<HashMap<(String, Option<String>), Waiting>>,
}

/// Until somebody says how a pull went.
type Waiting = watch::Receiver<Option<Pulled>>;

type Pulled = Result<ImageRecord, Reason>;

/// Whether a collection failed because pulls went on in the store for too long.
pub(crate) fn is_busy(error: &anyhow::Error) -> bool {
    error.downcast_ref::<flint_bundle::Error>().is_some_and(|error| error.kind() == flint_bundle::Kind::Unavailable)
}

fn reason(word: &str, sentence: impl std::fmt::Display) -> Reason {
    Reason { word: word.to_owned(), sentence: sentence.to_string() }
}

impl Images {
    /// Opens the store; `profiles` is the folder of seccomp profiles.
    ///
    /// # Errors
    ///
    /// It cannot be made, or is of another version.
    pub fn open(config: &ImageConfig, profiles: PathBuf) -> Result<Self> {
        let root = config.store.clone().map_or_else(Store::default_root, Ok)?;
        let settings = Settings {
            plain_http: config.plain_http.clone(),
            mirrors: config.mirrors.iter().map(|(registry, mirror)| (registry.clone(), mirror.clone())).collect(),
            // The kubelet's way: the pod's worker tries again, and says so meanwhile.
            tries: 2,
            ..Settings::default()
        };
        let parallel = Semaphore::new(config.parallel.max(1));
        let pulls = Arc::new(Pulls { parallel, under_way: Mutex::default() });
        let store = Store::open(&root).with_context(|| format!("open the images in {}", root.display()))?;
        let policy = Policy {
            high: config.gc_high_threshold,
            low: config.gc_low_threshold,
            min_age: Duration::from_secs(config.minimum_gc_age),
            ..Policy::default()
        };
        Ok(Self { store, settings, pulls, policy, profiles })
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Sees to it that an image is here. A caller that goes away stops no pull.
    ///
    /// # Errors
    ///
    /// Kubernetes' word (`InvalidImageName`, `ErrImageNeverPull`, `ErrImagePull`) and a sentence.
    pub async fn ensure(&self, name: &str, policy: PullPolicy, credentials: Option<&str>) -> Pulled {
        let reference: Reference = name.parse().map_err(|error| reason("InvalidImageName", error))?;
        let here = self.find(&reference).await?;
        if let Some(record) = &here {
            // It is young for the collection until a container is made of it.
            self.store.used(record);
        }
        match (policy, here) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(record)) => Ok(record),
            // What a digest names cannot have changed.
            (PullPolicy::Always, Some(record)) if reference.digest().is_some() => Ok(record),
            (PullPolicy::Never, None) => {
                Err(reason("ErrImageNeverPull", format!("the image {name} is not here, and is not to be pulled")))
            }
            (PullPolicy::Always | PullPolicy::IfNotPresent, _) => {
                self.pull(reference, credentials, Arc::new(Silent)).await
            }
        }
    }

    /// The image of a name, if it is here.
    ///
    /// # Errors
    ///
    /// The store's record of it cannot be read.
    pub async fn find(&self, name: &Reference) -> Result<Option<ImageRecord>, Reason> {
        let (store, name) = (self.store.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || store.named(&name)).await;
        found.map_err(|error| reason("ImageInspectError", error))?.map_err(|error| reason("ImageInspectError", error))
    }

    /// The health check that an image brings along.
    ///
    /// # Errors
    ///
    /// It is not here, or cannot be read.
    pub async fn health_check(&self, name: &str) -> Result<Option<HealthCheck>, NotHere> {
        #[derive(serde::Deserialize)]
        struct Document {
            config: Option<Run>,
        }
        #[derive(serde::Deserialize)]
        struct Run {
            #[serde(rename = "Healthcheck")]
            health_check: Option<HealthCheck>,
        }
        let name: Reference = name.parse().map_err(|_| NotHere)?;
        let record = self.find(&name).await.ok().flatten().ok_or(NotHere)?;
        let store = self.store.clone();
        let read = move || -> Result<Option<HealthCheck>> {
            let blob = store.image(&record)?.config_blob;
            let document: Document = serde_json::from_slice(&store.read_blob(&blob.digest, blob.size)?)?;
            Ok(document.config.and_then(|config| config.health_check))
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| NotHere)?.map_err(|_| NotHere)
    }

    /// Pulls an image, or waits for the pull of it that is under way.
    ///
    /// # Errors
    ///
    /// `ErrImagePull`, and the registry's or the store's sentence.
    pub async fn pull(
        &self,
        name: Reference,
        credentials: Option<&str>,
        progress: Arc<dyn Progress + Send + Sync>,
    ) -> Pulled {
        let key = (name.to_string(), credentials.map(str::to_owned));
        let mut result = {
            let mut under_way = self.pulls.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = under_way.get(&key) {
                result.clone()
            } else {
                let (tell, result) = watch::channel(None);
                under_way.insert(key.clone(), result.clone());
                tokio::spawn(self.clone().pull_for_all(name, key, progress, tell));
                result
            }
        };
        match result.wait_for(Option::is_some).await {
            Ok(pulled) => pulled.clone().unwrap_or_else(|| Err(reason("ErrImagePull", "the pull says nothing"))),
            Err(_) => Err(reason("ErrImagePull", "the pull was given up")),
        }
    }

    /// All images, with the bytes of each as they were pulled.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn all(&self) -> Result<Vec<(ImageRecord, u64)>> {
        let store = self.store.clone();
        let all = move || -> flint_bundle::Result<Vec<(ImageRecord, u64)>> {
            // One whose manifest is damaged is told with no bytes: it can be removed.
            let size = |record: &ImageRecord| store.image(record).map_or(0, |image| image.size());
            Ok(store.images()?.into_iter().map(|record| (record.clone(), size(&record))).collect())
        };
        Ok(tokio::task::spawn_blocking(all).await??)
    }

    /// The bytes of an image as it was pulled.
    ///
    /// # Errors
    ///
    /// Its manifest cannot be read.
    pub async fn size(&self, record: &ImageRecord) -> Result<u64> {
        let (store, record) = (self.store.clone(), record.clone());
        Ok(tokio::task::spawn_blocking(move || store.image(&record).map(|image| image.size())).await??)
    }

    /// Removes images that are too many for their disk, the longest unused first; `all`: each that may go, as when the disk is
    /// short. What containers are made of, `keep`, and what was used lately stays.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written, or pulls go on in it for too long.
    pub async fn collect(&self, keep: BTreeSet<String>, all: bool) -> Result<Collected> {
        let (store, mut policy) = (self.store.clone(), Policy { keep, ..self.policy.clone() });
        if all {
            (policy.high, policy.low) = (0, 0);
        }
        Ok(tokio::task::spawn_blocking(move || trim(&store, &policy)).await??)
    }

    /// Forgets a name; whether there was one. What nobody else needs of it goes with the next collection.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub async fn forget(&self, name: Reference) -> Result<bool> {
        let store = self.store.clone();
        let forget = move || -> flint_bundle::Result<bool> {
            if store.named(&name)?.is_none() {
                return Ok(false);
            }
            store.forget_image(&name)?;
            Ok(true)
        };
        Ok(tokio::task::spawn_blocking(forget).await??)
    }

    async fn pull_for_all(
        self,
        name: Reference,
        key: (String, Option<String>),
        progress: Arc<dyn Progress + Send + Sync>,
        tell: watch::Sender<Option<Pulled>>,
    ) {
        // It is never closed.
        let permit = self.pulls.parallel.acquire().await;
        let (store, settings, credentials) = (self.store.clone(), self.settings.clone(), key.1.clone());
        let work = move || pull(&store, &name, settings, credentials.as_deref(), progress.as_ref());
        let pulled = match tokio::task::spawn_blocking(work).await {
            Ok(pulled) => pulled.map_err(|error| reason("ErrImagePull", format!("{error:#}"))),
            Err(error) => Err(reason("ErrImagePull", error)),
        };
        drop(permit);
        self.pulls.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        let _ = tell.send(Some(pulled));
    }
}

fn pull(
    store: &Store,
    name: &Reference,
    mut settings: Settings,
    credentials: Option<&str>,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').context("the credentials are not USER:PASSWORD")?;
        settings.credentials =
            vec![(name.registry().to_owned(), Credentials::Password(user.to_owned(), password.to_owned()))];
        // It is the pod's alone: nothing else is shown what root has.
        settings.docker_config = None;
    }
    let (record, _) = registry::pull(store, name, &Platform::host(), &Fetch::default(), &settings, progress)?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn images(root: &std::path::Path, change: impl FnOnce(&mut ImageConfig)) -> Images {
        let mut config = ImageConfig { store: Some(root.join("store")), ..ImageConfig::default() };
        change(&mut config);
        Images::open(&config, root.join("seccomp")).unwrap()
    }

    /// What is in a file outlives a flintd that is killed.
    #[tokio::test]
    async fn credentials_of_a_pull_are_in_no_file() {
        let registry = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = registry.local_addr().unwrap().to_string();
        let address = host.clone();
        let asked = std::thread::spawn(move || {
            for stream in registry.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let shown = lines.filter_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                });
                let shown = shown.last();
                let status = if shown.is_some() { "404 Not Found" } else { "401 Unauthorized" };
                let head = "www-authenticate: Basic realm=\"r\"\r\ncontent-length: 0\r\nconnection: close";
                write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n").unwrap();
                if let Some(shown) = shown {
                    let files = std::fs::read_dir("/dev/shm").unwrap().filter_map(|entry| {
                        let path = entry.unwrap().path();
                        let is_small =
                            std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() < 4096);
                        let text = is_small.then(|| std::fs::read_to_string(path).ok())??;
                        text.contains(&address).then_some(text)
                    });
                    return (shown, files.count());
                }
            }
            unreachable!()
        });
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), |config| config.plain_http = vec![host.clone()]);
        let name = format!("{host}/r:1");
        let error = images.ensure(&name, PullPolicy::IfNotPresent, Some("me:pass:word")).await.unwrap_err();
        assert!(error.sentence.contains("has no such thing"), "{error:?}");
        let me = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "me:pass:word");
        assert_eq!(asked.join().unwrap(), (format!("Basic {me}"), 0));
        let error = images.ensure(&name, PullPolicy::IfNotPresent, Some("hidden")).await.unwrap_err();
        assert!(error.sentence.contains("USER:PASSWORD") && !error.sentence.contains("hidden"), "{error:?}");
    }

    #[tokio::test]
    async fn a_collection_that_pulls_hold_up_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut images = images(folder.path(), |_| {});
        images.policy.patience = Duration::ZERO;
        let pulls = images.store.lease().unwrap();
        assert!(is_busy(&images.collect(BTreeSet::new(), true).await.unwrap_err()));
        drop(pulls);
        images.collect(BTreeSet::new(), true).await.unwrap();
        std::fs::write(folder.path().join("store/images/damaged.json"), "{").unwrap();
        assert!(!is_busy(&images.collect(BTreeSet::new(), true).await.unwrap_err()));
    }
}
