// Package e2e tests the installed suite from end to end: real programs that
// talk over TCP, a real CRIU that dumps and restores them, and a capture of
// every packet at the other side. Its tests are built with the tag e2e and run
// in the lab (testdata/lab), where "the host" is a machine made for the run:
//
//	make e2e
//	make e2e RUN=TestMove/nftables/runc
//
// A world is a bridge with two hosts, each a network namespace. An engine is a
// way to checkpoint and restore: plain criu, runc or crun. A task is a traffic
// program that an engine runs on a host.
package e2e
