// Several processes: sums with the same bits on each, whoever dies or does not fit is named, and the launcher.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MiniGptError } from '../lib/errors.js';
import { Random } from '../lib/random.js';
import { launch } from '../lib/train/launch.js';
import { placeOf, threadsGiven } from '../lib/train/place.js';
import { joinGroup } from '../lib/train/processes.js';
import { missingGloo } from './gloo.js';
import { rejects } from './rejects.js';

const reason = missingGloo();
if (reason !== undefined) console.log(`skipped: ${reason}`);
const processes = suite('processes');
const withGloo = reason === undefined ? processes : processes.skip;

const freePort = () =>
  new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

const environment = (rank: number, size: number, port: number, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  RANK: String(rank),
  WORLD_SIZE: String(size),
  MASTER_ADDR: '127.0.0.1',
  MASTER_PORT: String(port),
  ...more,
});

// ---------------------------------------------------------------- processes of their own

/** What a child runs; it prints a line of JSON for each thing that happens. */
const program = `
const { joinGroup } = await import(lib + 'train/processes.ts');
const { Random } = await import(lib + 'random.ts');
const say = (value) => process.stdout.write(JSON.stringify(value) + '\\n');
const told = (error) => say({ failed: error.code, message: error.message });
try {
  const group = await joinGroup(process.env, { timeout: 20000 });
  say({ joined: group.rank });
  if (job === 'sums') {
    for (const length of lengths) {
      const random = new Random(length, group.rank);
      const sums = await group.sum(Float32Array.from({ length }, () => (random.uniform() - 0.5) * 2 ** (random.below(40) - 20)));
      say({ length, bits: Buffer.from(sums.buffer).toString('hex') });
    }
    say({ numbers: await group.sumNumbers([group.rank + 1, 0.1, 2 ** 60, -0.5]) });
    await group.close();
  } else if (job === 'exit') {
    group.sum(new Float32Array(1000)).catch(() => {});
    setTimeout(() => process.exit(9), 100);
  } else {
    group.failed.catch((error) => say({ noticed: error.code, message: error.message }));
    for (let step = 0; ; step++) {
      await group.sum(new Float32Array(100000));
      if (step === 3) say({ running: true });
    }
  }
} catch (error) {
  told(error);
}
`;

interface Child {
  process: ChildProcess;
  lines: Record<string, unknown>[];
  ended: Promise<number | null>;
  /** The first line that has this key. */
  line(key: string): Promise<Record<string, unknown>>;
}

const started = new Set<ChildProcess>();

/** Source text that defines these, and `lib`, the URL of lib/. */
function constantsOf(constants: Record<string, unknown>): string {
  const all = { lib: new URL('../lib/', import.meta.url).href, ...constants };
  return Object.entries(all)
    .map(([name, value]) => `const ${name} = ${JSON.stringify(value)};\n`)
    .join('');
}

function start(env: NodeJS.ProcessEnv, constants: Record<string, unknown>, text = program): Child {
  const child = spawn(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', constantsOf(constants) + text],
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  started.add(child);
  const lines: Record<string, unknown>[] = [];
  const waiting: { key: string; resolve: (line: Record<string, unknown>) => void; reject: (error: Error) => void }[] =
    [];
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    const whole = (rest + more).split('\n');
    rest = whole.pop()!;
    for (const line of whole) {
      const value = JSON.parse(line) as Record<string, unknown>;
      lines.push(value);
      for (const { key, resolve } of waiting) if (key in value) resolve(value);
    }
  });
  const limit = setTimeout(() => child.kill('SIGKILL'), 60_000);
  const ended = new Promise<number | null>((resolve) =>
    child.on('close', (code) => {
      clearTimeout(limit);
      started.delete(child);
      for (const { key, reject } of waiting)
        reject(new Error(`ended before "${key}": ${JSON.stringify(lines.slice(-2))}`));
      resolve(code);
    }),
  );
  const line = (key: string) =>
    new Promise<Record<string, unknown>>((resolve, reject) => {
      const found = lines.find((value) => key in value);
      if (found) resolve(found);
      else waiting.push({ key, resolve, reject });
    });
  return { process: child, lines, ended, line };
}

processes.after(() => {
  for (const child of started) child.kill('SIGKILL');
});

/** The sum as it is promised: in float64, in the order of ranks, rounded once. */
function expected(length: number, size: number): Float32Array {
  const randoms = Array.from({ length: size }, (_, rank) => new Random(length, rank));
  return Float32Array.from({ length }, () => {
    let sum = 0;
    for (const random of randoms) sum += Math.fround((random.uniform() - 0.5) * 2 ** (random.below(40) - 20));
    return sum;
  });
}

for (const size of [2, 3]) {
  withGloo(`${size} processes sum vectors of any length to the promised bits`, async () => {
    const port = await freePort();
    // nothing, fewer than processes, odd, and more than one buffer of a socket
    const lengths = [0, 1, 2, 7, 1000, 65_537, 700_001];
    const children = Array.from({ length: size }, (_, rank) =>
      start(environment(rank, size, port), { job: 'sums', lengths }),
    );
    await Promise.all(children.map((child) => child.ended));
    for (const length of lengths) {
      const want = Buffer.from(expected(length, size).buffer).toString('hex');
      for (const { lines } of children) {
        const found = lines.find((line) => line['length'] === length);
        assert.ok(found, `no sum of ${length} numbers: ${JSON.stringify(lines.at(-1))}`);
        assert.ok(found['bits'] === want, `other bits at length ${length}`);
      }
    }
    const tenth = Array.from({ length: size }, () => 0.1).reduce((a, b) => a + b, 0);
    for (const { lines } of children) {
      assert.equal(lines.at(-1), { numbers: [(size * (size + 1)) / 2, tenth, size * 2 ** 60, -0.5 * size] });
    }
  });
}

for (const victim of [1, 0]) {
  withGloo(`the others learn within seconds that rank ${victim} was killed`, async () => {
    const port = await freePort();
    const children = [0, 1, 2].map((rank) => start(environment(rank, 3, port), { job: 'forever', lengths: [] }));
    await Promise.all(children.map((child) => child.line('running')));
    const dead = children[victim]!;
    const at = performance.now();
    dead.process.kill('SIGKILL');
    for (const [rank, child] of children.entries()) {
      if (rank === victim) continue;
      const wanted = `rank ${victim} (process ${dead.process.pid} on `;
      for (const key of ['failed', 'noticed']) {
        const line = await child.line(key);
        assert.is(line[key], 'ERR_COLLECTIVE');
        assert.ok(String(line['message']).startsWith(wanted), String(line['message']));
      }
      assert.is(await child.ended, 0);
    }
    const seconds = (performance.now() - at) / 1000;
    assert.ok(seconds < 10, `it took ${seconds.toFixed(1)} s`);
  });
}

withGloo('a process that is stopped in the middle of a sum does not stop the others from ending', async () => {
  const port = await freePort();
  const children = [0, 1].map((rank) => start(environment(rank, 2, port), { job: 'forever', lengths: [] }));
  await Promise.all(children.map((child) => child.line('running')));
  children[1]!.process.kill('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.not.ok(children[0]!.lines.some((line) => 'failed' in line)); // it may wake again
  children[1]!.process.kill('SIGKILL');
  assert.match(
    String((await children[0]!.line('failed'))['message']),
    /^rank 1 \(process \d+ on .+\) ended without a goodbye/,
  );
});

withGloo('a process may end while it waits for a sum', async () => {
  const port = await freePort();
  const ending = start(environment(0, 2, port), { job: 'exit' });
  const group = await joinGroup(environment(1, 2, port), { timeout: 20_000 });
  assert.is(await ending.ended, 9);
  const error = await rejects('ERR_COLLECTIVE', group.sum(new Float32Array(1000)));
  assert.match(error.message, /^rank 0 \(process \d+ on .+\) ended without a goodbye/);
  await group.close();
});

// ---------------------------------------------------------------- groups within this process

/** Groups of all ranks, in this process. */
async function together(size: number) {
  const port = await freePort();
  const options = { timeout: 10_000, linger: 2000 };
  return Promise.all(Array.from({ length: size }, (_, rank) => joinGroup(environment(rank, size, port), options)));
}

withGloo('sums that were begun together keep their order', async () => {
  const groups = await together(2);
  const all = await Promise.all(
    groups.flatMap((group) => [1, 2, 3, 4].map((k) => group.sum(Float32Array.of(k, group.rank)))),
  );
  assert.equal(
    all.map((sums) => [...sums]),
    [...[1, 2, 3, 4], ...[1, 2, 3, 4]].map((k) => [2 * k, 1]),
  );
  await Promise.all(groups.map((group) => group.close()));
  for (const group of groups) await rejects('ERR_CLOSED', group.sum(new Float32Array(1)));
});

withGloo('a process that leaves as planned is missed by the next sum only', async () => {
  const groups = await together(2);
  const [first, second] = [groups[0]!, groups[1]!];
  await Promise.all(groups.map((group) => group.sumNumbers([1])));
  const left = second.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const outcome = await Promise.race([first.failed.catch(() => 'failed'), Promise.resolve('well')]);
  assert.is(outcome, 'well');
  const error = await rejects('ERR_COLLECTIVE', first.sumNumbers([1]));
  assert.match(error.message, /^rank 1 .* has left after 1 sums, this process waits for sum 2$/);
  await first.close();
  await left;
});

withGloo('a process that gives up ends the sum of the others with its reason', async () => {
  const groups = await together(3);
  const sums = [groups[0]!.sum(new Float32Array(5)), groups[2]!.sum(new Float32Array(5))];
  await new Promise((resolve) => setTimeout(resolve, 100));
  await groups[1]!.close(new MiniGptError('ERR_NAN_LOSS', 'the loss of step 7 is not finite'));
  for (const sum of sums) {
    const error = await rejects('ERR_COLLECTIVE', sum);
    assert.match(error.message, /^rank 1 \(.*\) gave up: the loss of step 7 is not finite$/);
  }
  for (const rank of [0, 2]) {
    await rejects('ERR_COLLECTIVE', groups[rank]!.failed);
    await groups[rank]!.close();
  }
});

withGloo('processes that sum different things are told so', async () => {
  const groups = await together(2);
  const errors = await Promise.all([
    rejects('ERR_COLLECTIVE', groups[0]!.sum(new Float32Array(5))),
    rejects('ERR_COLLECTIVE', groups[1]!.sum(new Float32Array(6))),
  ]);
  assert.match(
    errors.map((error) => error.message).join('\n'),
    /sums [56] numbers of 4 bytes .* where rank [01] sums [56]/,
  );
  await Promise.all(groups.map((group) => group.close()));
});

withGloo('a wrong world size, a taken rank and another run are refused with a sentence', async () => {
  const port = await freePort();
  const options = { timeout: 3000 };
  const first = rejects('ERR_COLLECTIVE', joinGroup(environment(0, 3, port), options));
  const second = rejects('ERR_COLLECTIVE', joinGroup(environment(1, 3, port), options));
  const refused = async (env: NodeJS.ProcessEnv) => (await rejects('ERR_COLLECTIVE', joinGroup(env, options))).message;
  assert.match(await refused(environment(1, 2, port)), 'WORLD_SIZE is 3 on rank 0 and 2 on rank 1');
  assert.match(await refused(environment(2, 3, port, { MINIGPT4_RUN: 'b' })), 'another run uses this port');
  assert.match(
    await refused(environment(1, 3, port)),
    /RANK 1 was given twice: rank 1 \(process \d+ on .+\) has it already/,
  );
  // whoever waited says for whom
  const vain =
    /^rank 0 waited 3 s in vain for 1 of 3 processes at 127\.0\.0\.1:\d+ \(rank 2\); refused: RANK 1 was given twice/;
  assert.match((await first).message, vain);
  assert.match((await second).message, /^rank 1 was refused by rank 0 at .* waited 3 s in vain/);
});

withGloo('strangers on the port do no harm', async () => {
  const port = await freePort();
  const first = joinGroup(environment(0, 2, port), { timeout: 10_000 });
  const stranger = (text: string) =>
    new Promise<void>((resolve) => {
      const again = () => {
        const socket = connect(port, '127.0.0.1', () => socket.write(text));
        socket.on('error', () => setTimeout(again, 50));
        socket.on('close', (failed) => !failed && resolve());
        socket.resume();
      };
      again();
    });
  await stranger('GET / HTTP/1.1\r\n\r\n');
  await stranger('{"kind":"share","rank":1,"key":"addresses","value":""}\n');
  await stranger(`{"kind":"hello","rank":${'9'.repeat(400)}}\n`);
  connect(port, '127.0.0.1').on('error', () => {}); // and one that says nothing
  const groups = await Promise.all([first, joinGroup(environment(1, 2, port), { timeout: 10_000 })]);
  assert.equal(await Promise.all(groups.map((group) => group.sumNumbers([2, 3]))), [
    [4, 6],
    [4, 6],
  ]);
  await Promise.all(groups.map((group) => group.close()));
});

withGloo('waiting ends with the time limit or the signal', async () => {
  const port = await freePort();
  const lonely = await rejects('ERR_COLLECTIVE', joinGroup(environment(1, 2, port), { timeout: 600 }));
  assert.match(lonely.message, /^rank 1 waited 0\.6 s in vain for rank 0 at 127\.0\.0\.1:\d+: .*ECONNREFUSED/);
  for (const rank of [0, 1]) {
    const controller = new AbortController();
    const joining = joinGroup(environment(rank, 2, port), { signal: controller.signal });
    setTimeout(() => controller.abort(), 100);
    await rejects('ERR_ABORTED', joining);
  }
  const server = createServer().listen(port, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const busy = await rejects('ERR_COLLECTIVE', joinGroup(environment(0, 2, port)));
  assert.match(busy.message, 'another program does; choose another MASTER_PORT');
  await new Promise((resolve) => server.close(resolve));
});

// ---------------------------------------------------------------- without Gloo

processes('a binary without the plug-in says what is missing before it waits for anybody', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'minigpt4-processes-'));
  try {
    const error = await rejects('ERR_NO_BACKEND', joinGroup(environment(1, 2, 1), { pluginFolder: folder }));
    assert.match(error.message, folder);
    assert.match(error.message, 'libgloo-dev');
    assert.match(error.message, 'scripts/cmake.mjs');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

processes('one process is a group too', async () => {
  for (const env of [{}, { WORLD_SIZE: '1', RANK: '0' }]) {
    const group = await joinGroup(env);
    assert.equal([group.rank, group.size], [0, 1]);
    assert.equal(await group.sum(Float32Array.of(1, 2)), Float32Array.of(1, 2));
    await group.close();
  }
});

processes('the environment is read as torchrun and srun write it, and what is wrong with it is named', () => {
  const torchrun = { ...environment(1, 4, 29500), LOCAL_RANK: '0', TORCHELASTIC_RUN_ID: 'x' };
  const place = { rank: 1, size: 4, localRank: 0, address: '127.0.0.1', port: 29500, run: 'x' };
  assert.equal(placeOf(torchrun), place);
  // its agent listens at MASTER_PORT itself
  assert.equal(placeOf({ ...torchrun, TORCHELASTIC_USE_AGENT_STORE: 'True' }), { ...place, port: 29501 });
  const srun = { SLURM_PROCID: '3', SLURM_NTASKS: '4', SLURM_LOCALID: '1', SLURM_JOB_ID: '7', SLURM_STEP_ID: '0' };
  assert.equal(placeOf({ ...srun, MASTER_ADDR: 'n1', MASTER_PORT: '1234' }), {
    rank: 3,
    size: 4,
    localRank: 1,
    address: 'n1',
    port: 1234,
    run: 'slurm 7.0',
  });
  const wrong = (env: Record<string, string | undefined>, pattern: RegExp) => {
    try {
      placeOf(env);
    } catch (error) {
      assert.is((error as MiniGptError).code, 'ERR_ARGUMENT');
      assert.match((error as MiniGptError).message, pattern);
      return;
    }
    assert.unreachable(`no error for ${JSON.stringify(env)}`);
  };
  wrong({ RANK: '0' }, /^RANK is 0 but WORLD_SIZE is not set$/);
  wrong(
    { ...torchrun, RANK: undefined },
    /^RANK with WORLD_SIZE 4: expected a whole number from 0 to 3, found nothing$/,
  );
  wrong({ ...torchrun, RANK: '4' }, /^RANK .* from 0 to 3, found "4"$/);
  wrong({ ...torchrun, WORLD_SIZE: 'two' }, /^WORLD_SIZE: .* found "two"$/);
  wrong({ ...torchrun, LOCAL_RANK: '-1' }, /^LOCAL_RANK: .* found "-1"$/);
  wrong({ ...torchrun, MASTER_ADDR: undefined }, /^MASTER_ADDR is not set with WORLD_SIZE 4/);
  wrong({ ...torchrun, MASTER_PORT: '70000' }, /^MASTER_PORT with WORLD_SIZE 4: .* to 65535, found "70000"$/);
  wrong(srun, /^MASTER_ADDR is not set with SLURM_NTASKS 4.*scontrol show hostnames/);
  assert.is(threadsGiven({}), undefined);
  assert.is(threadsGiven({ MINIGPT4_THREADS: '3' }), 3);
});

// ---------------------------------------------------------------- the launcher

/** Runs launch() with a script; what it said, and its exit code. */
async function launched(count: number, text: string, more: { grace?: number; threads?: number } = {}) {
  const said: string[] = [];
  const code = await launch(count, {
    argv: ['--input-type=module', '--eval', text],
    env: { ...process.env, MINIGPT4_THREADS: undefined },
    say: (line) => said.push(line),
    ...more,
  });
  return { code, said };
}

processes('the launcher places its processes, divides the cores and tells outputs apart', async () => {
  const names = ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MINIGPT4_THREADS'];
  const text = `if (process.env.RANK !== '0') console.error(${JSON.stringify(names)}.map((name) => process.env[name]).join(' '));`;
  const { code, said } = await launched(3, text);
  assert.is(code, 0);
  const threads = Math.max(1, Math.floor(availableParallelism() / 3));
  assert.equal(
    said.sort(),
    [1, 2].map((rank) => `[rank ${rank}] ${rank} ${rank} 3 127.0.0.1 ${threads}`),
  );
  const given = await launched(2, `if (process.env.RANK === '1') console.error(process.env.MINIGPT4_THREADS)`, {
    threads: 5,
  });
  assert.equal(given.said, ['[rank 1] 5']);
});

processes('the launcher ends all when one fails, and names it', async () => {
  const failing = await launched(2, `if (process.env.RANK === '1') process.exit(7); setInterval(() => {}, 1000)`, {
    grace: 100,
  });
  assert.is(failing.code, 7);
  assert.match(failing.said[0]!, /^minigpt4: rank 1 \(process \d+\) ended with exit code 7; the others end now$/);
  assert.match(failing.said[1]!, /^minigpt4: 1 of 2 processes still run and are told to end$/);
  const killed = await launched(2, `if (process.env.RANK === '1') process.kill(process.pid, 'SIGKILL')`);
  assert.is(killed.code, 137);
});

processes('the launcher passes a signal on once', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'minigpt4-processes-'));
  // each counts the signals of half a second and ends with their number
  const text = `
    import { existsSync, writeFileSync } from 'node:fs';
    let count = 0;
    process.on('SIGTERM', () => { if (count++ === 0) setTimeout(() => process.exit(20 + count), 500); });
    const file = ${JSON.stringify(join(folder, 'ready'))};
    if (process.env.RANK === '0') writeFileSync(file, '');
    const timer = setInterval(() => {
      if (process.env.RANK === '0' || !existsSync(file)) return;
      process.stderr.write('both are ready\\n');
      clearInterval(timer);
      setInterval(() => {}, 1000);
    }, 20);`;
  try {
    const said: string[] = [];
    const code = await launch(2, {
      argv: ['--input-type=module', '--eval', text],
      say: (line) => {
        said.push(line);
        if (line === '[rank 1] both are ready') process.kill(process.pid, 'SIGTERM');
      },
    });
    assert.is(code, 21, said.join('\n'));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

withGloo('processes whose launcher was killed end by themselves', async () => {
  const text = `
    const { launch } = await import(lib + 'train/launch.ts');
    await launch(2, { argv: ['--input-type=module', '--eval', text] });`;
  const child = start({}, { text: constantsOf({ job: 'forever', lengths: [] }) + program }, text);
  await child.line('running');
  child.process.kill('SIGKILL');
  const line = await child.line('failed');
  // rank 1 may have seen it first
  assert.match(
    String(line['message']),
    /the process that started this one has ended|^rank 1 .* ended without a goodbye/,
  );
  await child.ended; // closed by all that had inherited it
});

processes('a command that does not exist is an error with its name', async () => {
  const said: string[] = [];
  const code = await launch(2, { command: './no-such-command', argv: [], say: (line) => said.push(line) });
  assert.is(code, 1);
  assert.match(said[0]!, /rank 0 .* could not be started: .*no-such-command/);
});

processes.run();
