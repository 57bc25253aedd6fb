//! ca.proto: how a node gets its certificate.

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetRootCaCertificateResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
}

/// `NodeSpec.Availability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Availability {
    Active = 0,
    Pause = 1,
    Drain = 2,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IssueNodeCertificateRequest {
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
    #[prost(string, tag = "3")]
    pub token: String,
    #[prost(enumeration = "Availability", tag = "4")]
    pub availability: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IssueNodeCertificateResponse {
    #[prost(string, tag = "1")]
    pub node_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeCertificateStatusRequest {
    #[prost(string, tag = "1")]
    pub node_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeCertificateStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<IssuanceStatus>,
    #[prost(message, optional, tag = "2")]
    pub certificate: Option<Certificate>,
}

/// `IssuanceStatus.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Issuance {
    Unknown = 0,
    Renew = 1,
    Pending = 2,
    Issued = 3,
    Failed = 4,
    Rotate = 5,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IssuanceStatus {
    #[prost(enumeration = "Issuance", tag = "1")]
    pub state: i32,
    #[prost(string, tag = "2")]
    pub err: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Certificate {
    #[prost(int32, tag = "1")]
    pub role: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub status: Option<IssuanceStatus>,
    #[prost(bytes = "vec", tag = "4")]
    pub certificate: Vec<u8>,
    #[prost(string, tag = "5")]
    pub cn: String,
}
