// SPDX-License-Identifier: Apache-2.0

//go:build e2e && kubelet

package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kubeletConf lets anybody ask, and wants neither an API server nor control groups.
const kubeletConf = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
fileCheckFrequency: 1s
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: ""
staticPodPath: %[1]s/manifests
podLogsDir: %[1]s/pods
containerRuntimeEndpoint: unix://%[2]s
`

// kubelet is a kubelet by itself, with static pods.
type kubelet struct {
	*criEngine
	dir   string
	tasks int
}

const nodeName = "node"

// startKubelet starts it for containerd. It takes the node's address from the default
// route.
func startKubelet(t *testing.T, c *containerd) *kubelet {
	t.Helper()
	k := &kubelet{criEngine: newCRI(c), dir: t.TempDir()}
	for _, dir := range []string{"manifests", "pods", "root"} {
		if err := os.Mkdir(filepath.Join(k.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = runIn("", "", "umount", "-R", "-l", filepath.Join(k.dir, "root")) }) // it has mounted that on itself
	conf := filepath.Join(k.dir, "config.yaml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, kubeletConf, k.dir, filepath.Join(c.dir, "sock")), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "", "ip", "link", "add", "node0", "type", "bridge")
	t.Cleanup(func() { mustRun(t, "", "", "ip", "link", "del", "node0") })
	for _, line := range []string{"addr add 10.89.0.1/24 dev node0", "link set node0 up", "route add default via 10.89.0.2"} {
		mustRun(t, "", "", append([]string{"ip"}, strings.Fields(line)...)...)
	}
	startDaemon(t, k.dir, func() error {
		_, err := k.ask(http.MethodGet, "/healthz")
		return err
	}, filepath.Join(build, "kubelet"), "--config", conf, "--root-dir", filepath.Join(k.dir, "root"), "--cert-dir", filepath.Join(k.dir, "pki"),
		"--hostname-override", nodeName)
	return k
}

// ask asks the kubelet's own server.
func (k *kubelet) ask(method, path string) ([]byte, error) {
	client := http.Client{
		Timeout:   2 * patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // it has signed its certificate itself
	}
	request, err := http.NewRequest(method, "https://127.0.0.1:10250"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return text, err
}

func (k *kubelet) String() string { return "kubelet" }

// manifest is the file of a static pod.
func (k *kubelet) manifest() string { return filepath.Join(k.dir, "manifests", "db.json") }

// run has the kubelet run the pod shop/db, whose container is made from an image.
func (k *kubelet) run(task *task, image string, args []string) error {
	k.tasks++
	pod, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "db", "namespace": "shop", "annotations": map[string]string{"attempt": strconv.Itoa(k.tasks)}},
		"spec": map[string]any{
			"containers": []any{map[string]any{
				"name": "app", "image": image, "imagePullPolicy": "Always", "args": args,
				"volumeMounts": []any{map[string]any{"name": "data", "mountPath": "/data"}},
			}},
			"volumes":                       []any{map[string]any{"name": "data", "hostPath": map[string]any{"path": filepath.Dir(task.data("x"))}}},
			"enableServiceLinks":            false,
			"terminationGracePeriodSeconds": 30,
		},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.manifest(), pod, 0o600); err != nil {
		return err
	}
	deadline := time.Now().Add(4 * patience)
	for {
		err := k.find(task)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			pods, _ := k.ask(http.MethodGet, "/pods")
			return fmt.Errorf("the pod does not run: %w: %s", err, pods)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// find looks up the container that runs.
func (k *kubelet) find(task *task) error {
	id, err := k.crictl("ps", "--quiet", "--name", "^app$", "--state", "Running")
	if err != nil || id == "" || strings.Contains(id, " ") {
		return fmt.Errorf("no container runs: %s: %w", id, err)
	}
	return k.locate(task, id)
}

func (k *kubelet) start(task *task, args []string) {
	task.t.Helper()
	if err := k.run(task, appImage, append(args, "--stats", "/data/stats", "--log", "/data/log")); err != nil {
		task.t.Fatal(err)
	}
}

// dump uses the kubelet's checkpoint endpoint, and makes an image of the archive.
func (k *kubelet) dump(task *task, _ bool, _ ...string) error {
	answer, err := k.ask(http.MethodPost, "/checkpoint/shop/db-"+nodeName+"/app")
	if err != nil {
		return err
	}
	var made struct {
		Items []string `json:"items"`
	}
	if err := json.Unmarshal(answer, &made); err != nil || len(made.Items) != 1 {
		return fmt.Errorf("the kubelet answered %s: %w", answer, err)
	}
	_, err = runIn("", "", "cp", made.Items[0], k.archive(task)) // it is on a mount of the kubelet's
	return err
}

// checkpointImage is the image that is made of the archive.
const checkpointImage = registry + "/checkpoint:1"

func (k *kubelet) restore(task *task, _ ...string) error {
	crane := filepath.Join(build, "crane")
	mustRun(task.t, "", "", crane, "append", "--insecure", "-f", k.archive(task), "-t", checkpointImage)
	mustRun(task.t, "", "", crane, "mutate", "--insecure", "--annotation", "org.criu.checkpoint.container.name=app", checkpointImage, "-t", checkpointImage)
	return k.run(task, checkpointImage, nil)
}

// remove deletes the pod as an administrator does, and waits for its end.
func (k *kubelet) remove(task *task) {
	task.t.Helper()
	if err := os.Remove(k.manifest()); err != nil && !os.IsNotExist(err) {
		task.t.Error(err)
	}
	poll(task.t, 4*patience, "the kubelet to remove the pod", func() error {
		left, err := k.crictl("pods", "--quiet", "--state", "ready") // it keeps others for a while
		if err == nil && left != "" {
			err = fmt.Errorf("%s is left", left)
		}
		return err
	})
}

// TestKubelet has a kubelet checkpoint a container of a static pod, deletes the pod while
// the container is held, and has the kubelet restore it in a new pod.
func TestKubelet(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold", install: []string{"--manage-cgroups", "ignore"}}, runtimeEngine("runc"))
	k := startKubelet(t, newContainerd(t))
	h := newTopology(t).describeHost("app")
	p := newCalledPair(k, k.network(h), h, everyMillisecond)
	if err := k.dump(p.dumped, true); err != nil {
		t.Fatal(err)
	}
	p.dumped.awaitStop()
	deleted := time.Now()
	k.remove(p.dumped)
	if took := time.Since(deleted); took > 20*time.Second {
		t.Errorf("the pod took %v to end: the grace period is 30 s", took)
	}
	expect(t, "--pod", "shop/db-"+nodeName)
	p.restoreThere()
	if list := mustRun(t, "", "", netfreeze, "expect", "--list"); !strings.Contains(list, "netfreeze-cni") {
		t.Errorf("the pod was not frozen at its birth: %s", list)
	}
	if text, err := k.ask(http.MethodGet, "/pods"); err != nil || !bytes.Contains(text, []byte("db-"+nodeName)) {
		t.Errorf("the kubelet's pods: %v: %s", err, text)
	}
}
