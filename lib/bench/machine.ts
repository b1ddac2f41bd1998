// What a measurement ran on, and whether it was left alone: processor, memory, compiler, commit, time that threads waited for a core.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { addon, addonPath, packageRoot } from '../addon.js';

/** Shares of waiting above this mark a run as disturbed. */
export const DISTURBED_SHARE = 0.05;

/** Bytes of a process from /proc/PID/status, of this one unless told otherwise; undefined where there is none (other systems than Linux). */
export interface Memory {
  /** In memory now; of it, pages of files (mapped model files, shared and given back on need) and the process's own. */
  resident: number;
  file: number;
  own: number;
  /** The most that was ever resident. */
  peak: number;
}

export function memoryNow(process: number | 'self' = 'self'): Memory | undefined {
  try {
    const status = readFileSync(`/proc/${process}/status`, 'utf8');
    const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
    return { resident: of('VmRSS'), file: of('RssFile'), own: of('RssAnon'), peak: of('VmHWM') };
  } catch {
    return undefined;
  }
}

/** Bytes of this machine's memory in which nothing is kept, not even files; undefined where the system does not tell. */
export function unusedMemory(): number | undefined {
  try {
    const found = /^MemFree:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    return found ? Number(found[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}

/** Nanoseconds on a core and in wait for one, of each thread of a process, of this one unless told otherwise; empty where the system does not tell. */
type Threads = Map<string, { on: number; waited: number }>;

export function threadTimes(process: number | 'self' = 'self'): Threads {
  const threads: Threads = new Map();
  const folder = `/proc/${process}/task`;
  for (const id of namesIn(folder)) {
    try {
      const [on, waited] = readFileSync(`${folder}/${id}/schedstat`, 'utf8').split(' ').map(Number);
      threads.set(id, { on: on!, waited: waited! });
    } catch {
      // this thread ended meanwhile; the others did not
    }
  }
  return threads;
}

/** None where there is no such folder: another system, or the process ended. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** What the threads of a process did in some time. */
export interface ThreadUse {
  /** Milliseconds on a core, of all threads together. */
  coreMs: number;
  /** The share of the time that threads which had work stood waiting for a core. */
  waitedShare: number;
}

/** What the threads did since `before`; undefined where the system does not tell. */
export function threadUse(before: Threads, process: number | 'self' = 'self'): ThreadUse | undefined {
  let on = 0;
  let waited = 0;
  for (const [id, now] of threadTimes(process)) {
    on += now.on - (before.get(id)?.on ?? 0);
    waited += now.waited - (before.get(id)?.waited ?? 0);
  }
  return on + waited > 0 ? { coreMs: on / 1e6, waitedShare: waited / (on + waited) } : undefined;
}

/** Ticks of all cores: in use, and kept by the machine that this one is a guest of. */
export interface Ticks {
  used: number;
  stolen: number;
}

/** undefined where the system does not tell. */
export function ticksNow(): Ticks | undefined {
  try {
    const [, user, nice, system, , , irq, softirq, stolen] = readFileSync('/proc/stat', 'utf8')
      .split(/\s+/)
      .map(Number);
    return { used: user! + nice! + system! + irq! + softirq!, stolen: stolen! };
  } catch {
    return undefined;
  }
}

/** The share of the time wanted on all cores since `before` that the host kept for others. */
export function stolenShare(before: Ticks | undefined): number | undefined {
  const now = ticksNow();
  if (!before || !now) return undefined;
  const stolen = now.stolen - before.stolen;
  const wanted = stolen + now.used - before.used;
  return wanted > 0 ? stolen / wanted : 0;
}

export function describeMachine() {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    platform: `${platform()} ${arch()} ${release()}`,
    cpuLevels: addon.cpuLevels(),
    node: process.versions.node,
    version: version(),
    compiler: compilerOf(addonPath()),
    commit: commit(),
  };
}

function version(): string {
  return (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version;
}

/** The compiler's own words in the binary. */
function compilerOf(path: string): string {
  const found = /(GCC: \([^\0]*|(?:[\w ]*)clang version [^\0]*)\0/.exec(readFileSync(path).toString('latin1'));
  return found?.[1]?.trim() ?? 'unknown';
}

/** The checkout's commit; a package that is installed somewhere has none, whatever repository it lies in. */
function commit(): string {
  if (!existsSync(join(packageRoot, '.git'))) return 'none';
  const git = (...words: string[]) =>
    execFileSync('git', words, { cwd: packageRoot, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'native', 'lib', 'CMakeLists.txt') !== '';
    return git('rev-parse', '--short', 'HEAD') + (changed ? ' with changes' : '');
  } catch {
    return 'unknown';
  }
}
