// SPDX-License-Identifier: Apache-2.0

// Package e2e tests criu-netfreeze end to end, as it is installed: real
// programs exchange data over TCP, a real CRIU dumps and restores them, and
// every packet is captured on the peer's side. The tests are built with the
// tag e2e and run in the lab (testdata/lab), where "the host" is a set of
// namespaces made for the run:
//
//	make e2e
//	make e2e RUN=TestMove/nftables/runc
//
// A topology is a bridge with hosts connected to it, each host a network
// namespace. An engine is a way to checkpoint and restore: plain criu, runc,
// crun or podman. A task is a traffic program that an engine runs on a host.
package e2e
