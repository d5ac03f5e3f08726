package dist

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Config says which process of a job this is, and how it finds the other
// processes.
type Config struct {
	Rank, Size           int // number of this process, from 0; number of processes
	LocalRank, LocalSize int // the same, counting only the processes on this machine

	// Host and Port are the address of the store, through which the processes find
	// each other.
	Host string
	Port int

	// Serve says that this process runs the store. It is set for rank 0, unless
	// the launcher runs the store.
	Serve bool

	// Attempt counts the restarts of the whole job, so that a new attempt does not
	// read entries of an earlier one in the store of a launcher.
	Attempt int

	// CUDA says that tensors are exchanged over NCCL; otherwise they are
	// exchanged over Gloo.
	CUDA bool

	// Interface is the network interface that Gloo uses, such as "eth0"; "" means
	// the one that belongs to the name of the machine.
	Interface string

	// Timeout is the longest time that a call waits for other processes; 0 means 5
	// minutes. Within this time the others notice a process that hangs. A process
	// that dies is noticed at once.
	Timeout time.Duration
}

// FromEnviron reads the environment variables that a launcher sets for each
// process. ok is false if there are none: the program runs alone. getenv is
// os.Getenv or a similar function. The first launcher in this list whose variables
// are set counts:
//
//   - torchrun's RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
//     MASTER_PORT, which [Launch] sets, too;
//   - a Kubernetes Indexed Job's JOB_COMPLETION_INDEX, with WORLD_SIZE and
//     MASTER_ADDR from its manifest;
//   - Slurm's SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID, where the first node of
//     the step is the meeting place and the port follows from the job's number.
//
// HCUNET_INTERFACE names the network interface for Gloo (GLOO_SOCKET_IFNAME is
// read as well), HCUNET_TIMEOUT the timeout, such as "90s".
func FromEnviron(getenv func(string) string) (cfg Config, ok bool, err error) {
	e := environ{get: getenv}
	switch {
	case getenv("RANK") != "":
		cfg = e.torchrun()
	case getenv("JOB_COMPLETION_INDEX") != "" && getenv("WORLD_SIZE") != "":
		cfg = e.kubernetes()
	case getenv("SLURM_PROCID") != "" && getenv("SLURM_NTASKS") != "" && getenv("SLURM_NTASKS") != "1":
		cfg = e.slurm()
	default:
		return Config{}, false, nil
	}
	cfg.Interface = getenv("HCUNET_INTERFACE")
	if cfg.Interface == "" {
		cfg.Interface = getenv("GLOO_SOCKET_IFNAME")
	}
	if v := getenv("HCUNET_TIMEOUT"); v != "" {
		if cfg.Timeout, err = time.ParseDuration(v); err != nil {
			e.fail("HCUNET_TIMEOUT is %q, wanted a time such as 90s or 10m", v)
		}
	}
	if err := errors.Join(e.errs...); err != nil {
		return Config{}, true, err
	}
	return cfg, true, cfg.Check()
}

// Check returns an error for the first value that is not possible.
func (c Config) Check() error {
	switch {
	case c.Size < 1:
		return fmt.Errorf("dist: %d processes, wanted at least 1", c.Size)
	case c.Rank < 0 || c.Rank >= c.Size:
		return fmt.Errorf("dist: rank %d of %d processes, wanted 0 to %d", c.Rank, c.Size, c.Size-1)
	case c.LocalRank < 0 || c.LocalSize < 1 || c.LocalRank >= c.LocalSize:
		return fmt.Errorf("dist: local rank %d of %d processes on this machine", c.LocalRank, c.LocalSize)
	case c.Host == "":
		return errors.New("dist: no host to meet at; set MASTER_ADDR to the name or address of rank 0's machine")
	case c.Port < 1 || c.Port > 65535:
		return fmt.Errorf("dist: port %d, wanted 1 to 65535", c.Port)
	case c.Timeout < 0:
		return fmt.Errorf("dist: timeout %v, wanted a positive time", c.Timeout)
	}
	return nil
}

// defaultPort is torchrun's.
const defaultPort = 29500

type environ struct {
	get  func(string) string
	errs []error
}

func (e *environ) fail(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf("dist: "+format, args...))
}

// number reads a variable that must be set.
func (e *environ) number(name string) int {
	v := e.get(name)
	n, err := strconv.Atoi(v)
	if v == "" {
		e.fail("%s is not set, but other variables of its launcher are", name)
	} else if err != nil {
		e.fail("%s is %q, wanted a number", name, v)
	}
	return n
}

// numberOr reads a variable that may be missing.
func (e *environ) numberOr(name string, otherwise int) int {
	if e.get(name) == "" {
		return otherwise
	}
	return e.number(name)
}

func (e *environ) torchrun() Config {
	c := Config{
		Rank: e.number("RANK"), Size: e.number("WORLD_SIZE"),
		LocalRank: e.numberOr("LOCAL_RANK", 0),
		Host:      e.get("MASTER_ADDR"), Port: e.numberOr("MASTER_PORT", defaultPort),
		Attempt: e.numberOr("TORCHELASTIC_RESTART_COUNT", 0),
	}
	c.LocalSize = e.numberOr("LOCAL_WORLD_SIZE", c.LocalRank+1)
	// The agent of torchrun runs a store at this port.
	c.Serve = c.Rank == 0 && !strings.EqualFold(e.get("TORCHELASTIC_USE_AGENT_STORE"), "true")
	return c
}

func (e *environ) kubernetes() Config {
	c := Config{
		Rank: e.number("JOB_COMPLETION_INDEX"), Size: e.number("WORLD_SIZE"), LocalSize: 1,
		Host: e.get("MASTER_ADDR"), Port: e.numberOr("MASTER_PORT", defaultPort),
	}
	c.Serve = c.Rank == 0
	return c
}

func (e *environ) slurm() Config {
	c := Config{
		Rank: e.number("SLURM_PROCID"), Size: e.number("SLURM_NTASKS"), LocalRank: e.number("SLURM_LOCALID"),
		Host: e.get("MASTER_ADDR"),
	}
	c.LocalSize = max(tasksHere(e.get("SLURM_STEP_TASKS_PER_NODE"), e.numberOr("SLURM_NODEID", 0)), c.LocalRank+1)
	if c.Host == "" {
		nodes := e.get("SLURM_STEP_NODELIST")
		if nodes == "" {
			nodes = e.get("SLURM_JOB_NODELIST")
		}
		var err error
		if c.Host, err = firstNode(nodes); err != nil {
			e.errs = append(e.errs, err)
		}
	}
	// Jobs that share a node get different ports.
	c.Port = e.numberOr("MASTER_PORT", 20000+e.numberOr("SLURM_JOB_ID", 0)%10000+e.numberOr("SLURM_STEP_ID", 0)%10)
	c.Serve = c.Rank == 0
	return c
}

var hostList = regexp.MustCompile(`^([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)`)

// firstNode returns the first name of Slurm's compressed list: "gpu03" of
// "gpu[03-05,9],cpu1".
func firstNode(list string) (string, error) {
	m := hostList.FindStringSubmatch(list)
	if m == nil {
		return "", fmt.Errorf("dist: Slurm's list of nodes is %q; set MASTER_ADDR to the name of rank 0's machine", list)
	}
	return m[1] + m[2] + m[3], nil
}

var tasksPart = regexp.MustCompile(`^(\d+)(?:\(x(\d+)\))?$`)

// tasksHere returns the number of tasks on a node from Slurm's list such as
// "4(x2),3": four on nodes 0 and 1, three on node 2. It returns 0 if the list
// does not say it.
func tasksHere(list string, node int) int {
	for part := range strings.SplitSeq(list, ",") {
		m := tasksPart.FindStringSubmatch(part)
		if m == nil {
			return 0
		}
		tasks, _ := strconv.Atoi(m[1])
		times := 1
		if m[2] != "" {
			times, _ = strconv.Atoi(m[2])
		}
		if node < times {
			return tasks
		}
		node -= times
	}
	return 0
}

// Environ returns the variables that give a process this configuration, in the
// form that [FromEnviron] reads.
func (c Config) Environ() []string {
	return []string{
		fmt.Sprintf("RANK=%d", c.Rank), fmt.Sprintf("WORLD_SIZE=%d", c.Size),
		fmt.Sprintf("LOCAL_RANK=%d", c.LocalRank), fmt.Sprintf("LOCAL_WORLD_SIZE=%d", c.LocalSize),
		"MASTER_ADDR=" + c.Host, fmt.Sprintf("MASTER_PORT=%d", c.Port),
	}
}

// address returns the address of the store, for messages.
func (c Config) address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }
