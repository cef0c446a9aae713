// SPDX-License-Identifier: Apache-2.0

// Package identity says which container something is about: the one type that the
// configuration, the records and the look-up of containers share. It imports
// nothing of the suite, so that every package can use it.
package identity

// Container identifies a container. Any field may be empty, which means that it
// is not known; an empty field matches no pattern of the configuration.
type Container struct {
	// ID is the runtime's full container id.
	ID string `json:"id,omitempty"`
	// Name is the container's name in its engine or its pod.
	Name string `json:"name,omitempty"`
	// Pod is the container's Kubernetes pod as "NAMESPACE/NAME".
	Pod string `json:"pod,omitempty"`
	// Annotations are the OCI annotations of the container and its pod. They
	// choose settings, and are not part of what is written to a file.
	Annotations map[string]string `json:"-"`
}
