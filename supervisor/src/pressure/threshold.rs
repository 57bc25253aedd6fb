//! What has to be left.

use std::str::FromStr;

use serde::Deserialize;

use super::{Amount, Signal};

/// An amount, or a part of what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Threshold {
    /// Bytes, or pieces.
    Quantity(u64),
    /// Thousandths of all.
    Share(u64),
}

impl Threshold {
    /// How much it is of so much.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Quantity(quantity) => quantity,
            // In this order no file system overflows it.
            Self::Share(thousandths) => total / 1000 * thousandths + total % 1000 * thousandths / 1000,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no threshold: a quantity as 100Mi, or a part of 0% to 100% as 10% or 7.5%");
        if let Some(percent) = text.strip_suffix('%') {
            let thousandths = crate::manifest::milli(percent).ok_or_else(wrong)?.div_ceil(100);
            return if thousandths <= 1000 { Ok(Self::Share(thousandths)) } else { Err(wrong()) };
        }
        crate::manifest::whole(text).map(Self::Quantity).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What has to be left of each; 0 switches a signal off. What a configuration does not name keeps its default (the kubelet's
/// `mergeDefaultEvictionSettings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Of memory.
    #[serde(rename = "memory.available")]
    pub memory: Threshold,
    /// Of the file system with flintd's data.
    #[serde(rename = "nodefs.available")]
    pub node_disk: Threshold,
    /// Of its inodes.
    #[serde(rename = "nodefs.inodesFree")]
    pub node_inodes: Threshold,
    /// Of the file system with images.
    #[serde(rename = "imagefs.available")]
    pub image_disk: Threshold,
    /// Of its inodes.
    #[serde(rename = "imagefs.inodesFree")]
    pub image_inodes: Threshold,
    /// Of process ids.
    #[serde(rename = "pid.available")]
    pub pids: Threshold,
}

impl Default for Thresholds {
    /// The kubelet's (`DefaultEvictionHard`), by which people's expectations are made. It has none for process ids; a node
    /// without them cannot even be looked at.
    fn default() -> Self {
        Self {
            memory: Threshold::Quantity(100 << 20),
            node_disk: Threshold::Share(100),
            node_inodes: Threshold::Share(50),
            image_disk: Threshold::Share(150),
            image_inodes: Threshold::Share(50),
            pids: Threshold::Share(100),
        }
    }
}

impl Thresholds {
    /// How much has to be left.
    #[must_use]
    pub fn least(&self, signal: Signal, amount: Amount) -> u64 {
        let threshold = match signal {
            // A host with little memory is not short of it all the time.
            Signal::Memory | Signal::AllocatableMemory => {
                return match self.memory {
                    Threshold::Quantity(bytes) => bytes.min(amount.total / 10),
                    share @ Threshold::Share(_) => share.of(amount.total),
                };
            }
            Signal::NodeDisk => self.node_disk,
            Signal::NodeInodes => self.node_inodes,
            Signal::ImageDisk => self.image_disk,
            Signal::ImageInodes => self.image_inodes,
            Signal::Pids => self.pids,
        };
        threshold.of(amount.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_quantities_or_parts() {
        for (text, wanted) in [
            ("100Mi", Some(Threshold::Quantity(100 << 20))),
            ("1000", Some(Threshold::Quantity(1000))),
            ("10%", Some(Threshold::Share(100))),
            ("7.5%", Some(Threshold::Share(75))),
            ("0%", Some(Threshold::Share(0))),
            ("100%", Some(Threshold::Share(1000))),
            ("101%", None),
            ("-1%", None),
            ("much", None),
            ("", None),
            ("%", None),
        ] {
            assert_eq!(text.parse::<Threshold>().ok(), wanted, "{text:?}");
        }
        assert_eq!(Threshold::Share(75).of(1999), 149);
        assert_eq!(Threshold::Share(1000).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let some: Thresholds = toml_edit::de::from_str("\"nodefs.available\" = \"1Gi\"").unwrap();
        assert_eq!(some, Thresholds { node_disk: Threshold::Quantity(1 << 30), ..Thresholds::default() });
        for wrong in ["\"nodefs.free\" = \"1Gi\"", "\"nodefs.available\" = \"lots\""] {
            assert!(toml_edit::de::from_str::<Thresholds>(wrong).is_err(), "{wrong}");
        }
    }
}
