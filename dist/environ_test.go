package dist

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestFromEnviron(t *testing.T) {
	for _, c := range []struct {
		name string
		vars map[string]string
		want Config
	}{
		{"torchrun, its agent keeps the store", map[string]string{ // torchrun 2.x, as it starts each worker
			"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500",
			"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"},
			Config{Rank: 3, Size: 4, LocalRank: 1, LocalSize: 2, Host: "gpu1", Port: 29500, Attempt: 2}},
		{"by hand, rank 0", map[string]string{"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "GLOO_SOCKET_IFNAME": "eth1"},
			Config{Size: 2, LocalSize: 1, Host: "10.0.0.1", Port: 29500, Serve: true, Interface: "eth1"}},
		{"Kubernetes", map[string]string{"JOB_COMPLETION_INDEX": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "train-0.train", "HCUNET_TIMEOUT": "90s"},
			Config{Rank: 1, Size: 3, LocalSize: 1, Host: "train-0.train", Port: 29500, Timeout: 90 * time.Second}},
		{"Slurm", map[string]string{
			"SLURM_PROCID": "5", "SLURM_NTASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4,2,1",
			"SLURM_STEP_NODELIST": "gpu[03-05]", "SLURM_JOB_ID": "123456", "SLURM_STEP_ID": "0"},
			Config{Rank: 5, Size: 7, LocalRank: 1, LocalSize: 2, Host: "gpu03", Port: 23456}},
	} {
		got, ok, err := FromEnviron(environment(c.vars))
		require.NoError(t, err, c.name)
		require.True(t, ok, c.name)
		require.Equal(t, c.want, got, c.name)
	}
	// A lone task of Slurm, and no launcher at all.
	for _, vars := range []map[string]string{nil, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, {"JOB_COMPLETION_INDEX": "2"}} {
		_, ok, err := FromEnviron(environment(vars))
		require.NoError(t, err)
		require.False(t, ok)
	}
}

func TestFromEnvironRefuses(t *testing.T) {
	for _, c := range []struct {
		vars map[string]string
		want string
	}{
		{map[string]string{"RANK": "1"}, "WORLD_SIZE is not set"},
		{map[string]string{"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, `RANK is "x", wanted a number`},
		{map[string]string{"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "rank 2 of 2 processes, wanted 0 to 1"},
		{map[string]string{"RANK": "0", "WORLD_SIZE": "2"}, "set MASTER_ADDR"},
		{map[string]string{"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "70000"}, "port 70000"},
		{map[string]string{"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "HCUNET_TIMEOUT": "90"}, "wanted a time such as 90s"},
		{map[string]string{"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}, "Slurm's list of nodes"},
	} {
		_, ok, err := FromEnviron(environment(c.vars))
		require.True(t, ok)
		require.ErrorContains(t, err, c.want)
	}
}

// Lists as `scontrol show hostnames` expands them.
func TestFirstNode(t *testing.T) {
	for list, want := range map[string]string{
		"gpu1": "gpu1", "gpu[03-05,9],cpu1": "gpu03", "a,b": "a", "rack[1-2]-ib": "rack1-ib", "n[7]": "n7",
	} {
		got, err := firstNode(list)
		require.NoError(t, err)
		require.Equal(t, want, got, list)
	}
}

func TestEnvironRoundTrip(t *testing.T) {
	want := Config{Rank: 2, Size: 4, LocalRank: 2, LocalSize: 4, Host: "127.0.0.1", Port: 4321}
	vars := map[string]string{}
	for _, v := range want.Environ() {
		for i := range v {
			if v[i] == '=' {
				vars[v[:i]] = v[i+1:]
				break
			}
		}
	}
	got, ok, err := FromEnviron(environment(vars))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, want, got)
}
