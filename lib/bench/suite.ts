// The whole benchmark: the machine's limits, then every group of programs on synthetic files, as one record.
import { addon } from '../addon.js';
import { abortedError } from '../errors.js';
import { describeMachine, DISTURBED_SHARE } from './machine.js';
import { SyntheticFiles } from './files.js';
import { measureGroup, type Session } from './group.js';
import { installPeer } from './peers.js';
import { planGroups, type Group, type Scope } from './plan.js';
import { betterLimits, limitsOf, setShare, type BenchRecord, type Limits } from './record.js';

export interface SuiteOptions extends Scope {
  repeat: number;
  /** Where synthetic files stay; left out: a temporary folder. */
  folder?: string;
  peerFolder: string;
  signal: AbortSignal;
  /** Takes a line about what is done. */
  tell(line: string): void;
}

/** Of the measured memory: far beyond caches; and how often each limit is taken. */
const LIMITS = { full: { bytes: 2 ** 30, passes: 15 }, quick: { bytes: 2 ** 28, passes: 5 } };

/** Errors: ERR_ABORTED, ERR_FILE_READ (the folder). What cannot be measured is told and left out; `failed`: something of ours was. */
export async function runSuite(options: SuiteOptions): Promise<{ record: BenchRecord; failed: boolean }> {
  const began = performance.now();
  const { signal, tell, threads, quick } = options;
  const record: BenchRecord = {
    date: new Date().toISOString(),
    machine: describeMachine(),
    threads,
    peers: {},
    disturbedAbove: DISTURBED_SHARE,
    seconds: 0,
    limits: [],
    results: [],
    loads: [],
    busy: [],
    skipped: [],
  };
  const files = await SyntheticFiles.in(options.folder, tell, signal); // before npm downloads anything, as it may fail
  const session: Session = {
    ...{ files, record, signal, tell, failed: false },
    ...{ repeat: options.repeat, loads: quick ? 1 : 3, peerFolder: options.peerFolder },
  };
  try {
    const groups = await withPeers(planGroups(options), record, options);
    record.limits = await limitsNow(groups, options);
    for (const limits of record.limits) tell(toldLimits(limits));
    for (const [i, group] of groups.entries()) {
      await measureGroup(group, session);
      const needed = new Set(
        groups
          .slice(i + 1)
          .flatMap(filesOf)
          .map(({ name }) => name),
      );
      for (const file of filesOf(group)) if (!needed.has(file.name)) await files.drop(file);
    }
    record.limits = await limitsAgain(groups, session, options);
    for (const result of record.results) setShare(result, record.limits);
  } finally {
    await files.end();
  }
  record.seconds = Math.round((performance.now() - began) / 1000);
  return { record, failed: session.failed };
}

const filesOf = (group: Group) => group.participants.flatMap(({ files }) => Object.values(files));

/** The groups without the peers that cannot be had. */
async function withPeers(groups: Group[], record: BenchRecord, options: SuiteOptions): Promise<Group[]> {
  const wanted = new Set(groups.flatMap(({ participants }) => participants.map(({ program }) => program)));
  const missing = new Set<string>();
  for (const name of wanted) {
    if (name === 'minigpt4') continue;
    try {
      record.peers[name] = await installPeer(options.peerFolder, name, options.signal);
    } catch (error) {
      if (options.signal.aborted) throw error;
      const line = error instanceof Error ? error.message : String(error);
      missing.add(name);
      record.skipped.push(line);
      options.tell(`left out: ${line}`);
    }
  }
  return groups.map(({ model, participants }) => ({
    model,
    participants: participants.filter(({ program }) => !missing.has(program)),
  }));
}

/** Of every level and number of threads that something is measured with; the first is what peers are compared with. */
async function limitsNow(groups: Group[], { levels, threads, quick, signal }: SuiteOptions): Promise<Limits[]> {
  const wanted = new Map<string, { level: string; threads: number }>();
  const want = (level: string, count: number) => wanted.set(`${level} ${count}`, { level, threads: count });
  want(levels[0]!, threads);
  for (const { participants } of groups) for (const one of participants) want(one.level ?? levels[0]!, one.threads);
  const found: Limits[] = [];
  for (const wish of wanted.values()) {
    if (signal.aborted) throw abortedError(signal);
    found.push(limitsOf(await addon.measureMachine({ ...wish, ...LIMITS[quick ? 'quick' : 'full'] })));
  }
  return found;
}

/** The better ones of before and now. What was measured in between is worth more than a second time: where that fails, it is told. */
async function limitsAgain(groups: Group[], session: Session, options: SuiteOptions): Promise<Limits[]> {
  const { limits, skipped } = session.record;
  try {
    const after = await limitsNow(groups, options);
    return limits.map((before, i) => betterLimits(before, after[i]!));
  } catch (error) {
    if (options.signal.aborted) throw error;
    const line = `the limits a second time: ${error instanceof Error ? error.message : String(error)}`;
    session.failed = true;
    skipped.push(line);
    options.tell(`left out: ${line}`);
    return limits;
  }
}

function toldLimits(limits: Limits): string {
  const { level, threads, read, fma, dot, tileInt8, tileBf16, disturbed } = limits;
  const parts = [
    `reads ${read!.best.toFixed(1)} GB/s`,
    `float32 ${fma!.best.toFixed(3)} TFLOP/s`,
    ...(dot ? [`int8 ${dot.best.toFixed(3)} TOP/s`] : []),
    ...(tileInt8 ? [`int8 tiles ${tileInt8.best.toFixed(2)} TOP/s`] : []),
    ...(tileBf16 ? [`bf16 tiles ${tileBf16.best.toFixed(2)} TFLOP/s`] : []),
  ];
  return `the machine, ${level}, ${threads} threads: ${parts.join(', ')}${disturbed ? ' (disturbed)' : ''}`;
}
