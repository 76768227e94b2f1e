// A client of Go's net/http. Usage: client KIND URL PAUSE_MS WORKERS SECONDS, where KIND is http1 or http2.
//
// Each worker sends GET and POST in turn, with pauses; this program never retries. At the end, one line of JSON has the number
// of answered requests, the failures by text, and the first and last generation that answered. A wrong response is a failure.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

type tally struct {
	Version  string         `json:"version"`
	Answered int            `json:"answered"`
	Failed   int            `json:"failed"`
	Failures map[string]int `json:"failures"`
	First    int            `json:"first"`
	Last     int            `json:"last"`
	mutex    sync.Mutex
}

var (
	ports      = regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?`)
	generation = regexp.MustCompile(`^generation=(\d+) `)
)

func ask(client *http.Client, url, sent string) (int, error) {
	var answer *http.Response
	var err error
	if sent == "" {
		answer, err = client.Get(url + "/")
	} else {
		answer, err = client.Post(url+"/echo", "text/plain", strings.NewReader(sent))
	}
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	if answer.StatusCode != 200 {
		return 0, fmt.Errorf("status %d", answer.StatusCode)
	}
	if sent != "" {
		if string(body) != sent {
			return 0, fmt.Errorf("a wrong body of POST")
		}
		return 0, nil
	}
	found := generation.FindSubmatch(body)
	if found == nil {
		return 0, fmt.Errorf("a wrong body of GET")
	}
	return strconv.Atoi(string(found[1]))
}

func (t *tally) add(generation int, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if err != nil {
		text := ports.ReplaceAllString(err.Error(), "ADDRESS")
		t.Failed++
		t.Failures[text]++
		return
	}
	t.Answered++
	if generation > 0 {
		if t.First == 0 || generation < t.First {
			t.First = generation
		}
		if generation > t.Last {
			t.Last = generation
		}
	}
}

func main() {
	kind, url := os.Args[1], os.Args[2]
	pause, _ := time.ParseDuration(os.Args[3] + "ms")
	workers, _ := strconv.Atoi(os.Args[4])
	length, _ := time.ParseDuration(os.Args[5] + "s")
	end := time.Now().Add(length)

	// The default transport, except that it accepts the self-signed certificate.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if kind == "http2" {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		transport.ForceAttemptHTTP2 = true
	}
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	result := tally{Version: runtime.Version(), Failures: map[string]int{}}

	var all sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			time.Sleep(pause * time.Duration(worker) / time.Duration(workers))
			for n := 0; time.Now().Before(end); n++ {
				sent := ""
				if n%2 == 1 {
					sent = strings.Repeat(fmt.Sprintf("%d-%d ", worker, n), 300)
				}
				result.add(ask(client, url, sent))
				time.Sleep(pause)
			}
		}(worker)
	}
	all.Wait()
	line, _ := json.Marshal(&result)
	fmt.Println(string(line))
}
