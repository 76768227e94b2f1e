// Clients of Node. Usage: clients.mjs KIND URL PAUSE_MS WORKERS SECONDS
//
// Each worker sends GET and POST in turn, with pauses, and never retries. At the end, one line of JSON has the number of
// answered requests, the failures by text, and the first and last generation that answered. A wrong response is a failure.
import { createRequire } from 'node:module';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const [kind, url, pause, workers, seconds] = process.argv.slice(2).map((word) => (/^[\d.]+$/.test(word) ? Number(word) : word));
const end = Date.now() + seconds * 1000;
const TIMEOUT = 15_000;
const tally = { answered: 0, failures: {}, first: 0, last: 0, closed: 0, crossed: 0 };

function failed(error) {
  const cause = error.cause ?? error;
  const text = [error.name, cause.code, error.message, cause === error ? '' : cause.message].filter(Boolean).join(' ');
  const short = text.replace(/\b127[.\d]+:\d+|\bport \d+/g, '').slice(0, 160);
  tally.failures[short] = (tally.failures[short] ?? 0) + 1;
}

function seen(generation) {
  const number = Number(generation);
  if (!number) return;
  tally.first = Math.min(tally.first || number, number);
  tally.last = Math.max(tally.last, number);
}

// Checks a response: the body of a POST must have come back.
function check(sent, status, body) {
  if (status !== 200) throw new Error(`status ${status}`);
  if (sent !== undefined && sent !== body) throw new Error('a wrong body of POST');
  const generation = sent === undefined ? /^generation=(\d+) /.exec(body)?.[1] : undefined;
  if (sent === undefined && !generation) throw new Error('a wrong body of GET');
  tally.answered += 1;
  seen(generation);
}

// Runs the workers. `ask` gets the path and, for a POST, the body, and returns status and body of the response.
async function work(ask) {
  await Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      await sleep((pause * worker) / workers);
      for (let n = 0; Date.now() < end; n += 1) {
        const sent = n % 2 === 0 ? undefined : `${worker}-${n} `.repeat(300);
        try {
          check(sent, ...(await ask(sent === undefined ? '/' : '/echo', sent)));
        } catch (error) {
          failed(error);
        }
        await sleep(pause);
      }
    }),
  );
}

const method = (sent) => (sent === undefined ? 'GET' : 'POST');
const require = createRequire(import.meta.url);
const version = (name) => `${name} ${JSON.parse(require('node:fs').readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version}`;

async function fetchOfNode() {
  await work(async (path, body) => {
    const answer = await fetch(url + path, { method: method(body), body, signal: AbortSignal.timeout(TIMEOUT) });
    return [answer.status, await answer.text()];
  });
  return `Node ${process.versions.node} (undici ${process.versions.undici})`;
}

async function agent() {
  const agent = new http.Agent({ keepAlive: true });
  await work(
    (path, body) =>
      new Promise((resolve, reject) => {
        const request = http.request(url + path, { agent, method: method(body), timeout: TIMEOUT }, (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk) => (text += chunk));
          answer.on('end', () => resolve([answer.statusCode, text])).on('error', reject);
        });
        request.on('error', reject).on('timeout', () => request.destroy(new Error('timeout')));
        request.end(body);
      }),
  );
  agent.destroy();
  return `Node ${process.versions.node}`;
}

async function undici() {
  const { Agent, request } = await import('undici');
  const dispatcher = new Agent({ allowH2: true, connect: { rejectUnauthorized: false } });
  await work(async (path, body) => {
    const signal = AbortSignal.timeout(TIMEOUT);
    const answer = await request(url + path, { dispatcher, method: method(body), body, signal });
    return [answer.statusCode, await answer.body.text()];
  });
  await dispatcher.destroy();
  return version('undici');
}

async function got() {
  const client = (await import('got')).default.extend({
    http2: true,
    retry: { limit: 0 },
    https: { rejectUnauthorized: false },
    timeout: { request: TIMEOUT },
  });
  await work(async (path, body) => {
    const answer = await client(url + path, { method: method(body), body });
    return [answer.statusCode, answer.body];
  });
  return `${version('got')}, ${version('http2-wrapper')}`;
}

// Opens a WebSocket per worker. A close frame is an orderly end, and a message that crosses it is not lost: the client knows
// that it was not handled. An end without a close frame is a failure, and so is a message without an echo.
async function ws() {
  const { default: WebSocket } = await import('ws');
  const open = () =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(url.replace('http', 'ws') + '/ws');
      socket.on('upgrade', (answer) => seen(answer.headers.generation));
      socket.on('open', () => resolve(socket)).on('error', reject);
    });
  const echo = (socket, sent) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no echo')), TIMEOUT);
      const settle = (how, what) => (clearTimeout(timer), socket.off('message', got).off('close', left), how(what));
      const got = (message) => (String(message) === sent ? settle(resolve, true) : settle(reject, new Error('a wrong echo')));
      const left = (code) => (code === 1001 ? settle(resolve, false) : settle(reject, new Error(`closed with ${code}`)));
      socket.on('message', got).on('close', left).send(sent);
    });
  await Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      await sleep((pause * worker) / workers);
      let socket;
      for (let n = 0; Date.now() < end; n += 1) {
        try {
          if (socket?.readyState !== WebSocket.OPEN) {
            socket = await open();
            socket.on('error', failed).on('close', (code) => {
              tally.closed += code === 1001;
              // Code 1006: the connection ended without a close frame. 1005 and 1000: this client closed it.
              if (code === 1006) failed(new Error('closed without a close frame'));
            });
          }
          if (await echo(socket, `${worker}-${n} `.repeat(300))) tally.answered += 1;
          else tally.crossed += 1;
        } catch (error) {
          failed(error);
        }
        await sleep(pause);
      }
      socket?.close();
    }),
  );
  return version('ws');
}

const name = await { fetch: fetchOfNode, agent, undici, got, ws }[kind]();
const sum = Object.values(tally.failures).reduce((a, b) => a + b, 0);
const notes = kind === 'ws' ? `${tally.closed} times closed with 1001, ${tally.crossed} messages crossed it` : '';
console.log(JSON.stringify({ version: name, ...tally, failed: sum, notes }));
// Some clients keep connections open, which would keep the process alive.
process.exit(0);
