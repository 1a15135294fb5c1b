//! The values of sets and rules as bytes, in the network's order.

use std::net::IpAddr;

use config::boot::Protocol;

use crate::firewall::ruleset::{Family, Field, Value};

pub(super) fn value_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Interface(name) => interface_name(name),
        Value::V4(address) => address.octets().to_vec(),
        Value::V6(address) => address.octets().to_vec(),
        Value::Protocol(protocol) => vec![protocol_number(*protocol)],
        Value::Port(port) => port.to_be_bytes().to_vec(),
        Value::Icmp(number) => vec![*number],
    }
}

/// `IFNAMSIZ` bytes.
pub(super) fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

pub(super) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

pub(super) const fn length_of(field: Field) -> u32 {
    match field {
        Field::InterfaceName => 16,
        Field::Source(Family::V4) | Field::Destination(Family::V4) => 4,
        Field::Source(Family::V6) | Field::Destination(Family::V6) => 16,
        Field::Protocol | Field::IcmpType(_) => 1,
        Field::Port => 2,
    }
}

pub(super) const fn padded(length: u32) -> u32 {
    length.next_multiple_of(4)
}
