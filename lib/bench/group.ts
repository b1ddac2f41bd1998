// Measures the programs of one group: loading in processes of its own, then all of them loaded together, a run each in turn.
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { addon } from '../addon.js';
import { checkMemory, DoesNotFit, type PlannedFile, type SyntheticFiles } from './files.js';
import { MeasuredProcess, type Run } from './measured-process.js';
import { Neighbour } from './neighbour.js';
import type { Memory } from './machine.js';
import { MODEL_FILE, WEIGHTS_FILE } from './onnx-vit.js';
import { bytesPerToken, encodingOperations, isOfVit, promptOperations } from './operations.js';
import { CONTEXT_LENGTH, type Group, type Participant } from './plan.js';
import {
  LIMIT_NAMES,
  isDisturbed,
  limitsFor,
  sameSubject,
  setShare,
  timesOf,
  type BenchRecord,
  type Limits,
  type Result,
  type Subject,
} from './record.js';
import type { Wish } from './serve.js';
import { VISIONS } from './synthetic.js';
import { touchMemory } from './touch-memory.js';
import { doneBy, middle, nameOf, rounded, significant, type Test } from './measured-test.js';

/** What all groups of a run share. */
export interface Session {
  files: SyntheticFiles;
  record: BenchRecord;
  /** Runs of a test; fewer where they take long. */
  repeat: number;
  /** Warm loads that count. */
  loads: number;
  peerFolder: string;
  signal: AbortSignal;
  tell(line: string): void;
  /** Something of ours failed: the run goes on, and its exit code tells. */
  failed: boolean;
}

/** A run beyond this is given up: a program that collapsed under a busy neighbour may never finish. */
const RUN_LIMIT_MS = 180_000;
const BUSY_LIMIT_MS = 60_000;
const BUSY_TURNS = 3;
/** What runs of one program and test may take before they are not repeated again; then there are at least so many. */
const PATIENCE_MS = 20_000;
const LEAST_TURNS = 3;

const scripts = { minigpt4: 'ours', 'node-llama-cpp': 'peer-llama', 'onnxruntime-node': 'peer-onnx' } as const;

/** A participant whose files are there. */
interface Ready {
  participant: Participant;
  subject: Subject;
  wish: Wish;
  /** As lines call it. */
  title: string;
}

interface Started extends Ready {
  process: MeasuredProcess;
}

export async function measureGroup(group: Group, session: Session): Promise<void> {
  const ready: Ready[] = [];
  for (const participant of group.participants) {
    const one = await attempt(session, titleOf(group, participant), participant, () =>
      prepare(group, participant, session),
    );
    if (one) ready.push(one);
  }
  let waiting: Ready[] = [];
  for (const one of ready) {
    const loaded = async (): Promise<boolean> => (await measureLoading(one, session), true);
    if (!one.participant.loads || (await attempt(session, one.title, one.participant, loaded))) waiting.push(one);
  }
  for (let round = 1; waiting.length > 0; round++) waiting = await measureTogether(waiting, round, session);
}

const titleOf = ({ model }: Group, { type, program, level, threads }: Participant): string =>
  [model, type, program, ...(level === undefined ? [] : [level]), `${threads} threads`].join(' ');

/** What cannot be done is told and left out; what ends the whole run is thrown. */
async function attempt<T>(
  session: Session,
  title: string,
  { program }: Participant,
  what: () => Promise<T>,
  doing?: string,
): Promise<T | undefined> {
  try {
    return await what();
  } catch (error) {
    if (session.signal.aborted) throw error;
    const message = error instanceof Error ? error.message : String(error);
    const rest = message.startsWith(title) ? message.slice(title.length) : `: ${message}`;
    const line = (doing === undefined ? title : `${title}, ${doing}`) + rest;
    if (program === 'minigpt4' && !(error instanceof DoesNotFit)) session.failed = true;
    session.record.skipped.push(line);
    session.tell(`left out: ${line}`);
    return undefined;
  }
}

async function prepare(group: Group, participant: Participant, session: Session): Promise<Ready> {
  const { files, program, type, level, threads } = participant;
  const made = async (file: PlannedFile | undefined): Promise<string | undefined> =>
    file && (await session.files.made(file));
  const [llm, vision, onnx] = [await made(files.llm), await made(files.vision), await made(files.onnx)];
  return {
    participant,
    subject: { model: group.model, type, program, ...(level === undefined ? {} : { level }), threads },
    wish: {
      ...(llm === undefined ? {} : { llm }),
      ...(vision === undefined ? {} : { vision }),
      ...(onnx === undefined ? {} : { onnx: { folder: onnx, imageSize: VISIONS[group.model]!.image } }),
      ...(program === 'minigpt4' ? {} : { peerFolder: session.peerFolder }),
      ...(level === undefined ? {} : { level }),
      threads,
      contextLength: CONTEXT_LENGTH,
    },
    title: titleOf(group, participant),
  };
}

/** A new process with everything loaded; `before` runs once the process is up, right before it loads. Error DoesNotFit: not beside what is loaded already. */
async function start(
  one: Ready,
  session: Session,
  before?: () => Promise<void>,
): Promise<{ process: MeasuredProcess; load: Run }> {
  const { participant, title, wish } = one;
  checkMemory(title, participant.memoryBytes);
  const process = new MeasuredProcess(scripts[participant.program], title, session.signal);
  try {
    if (before) {
      await process.ready(RUN_LIMIT_MS);
      await before();
    }
    return { process, load: await process.load(wish, RUN_LIMIT_MS) };
  } catch (error) {
    await process.close();
    throw error;
  }
}

/** Reads all of a file. */
async function bringIntoCache(path: string, signal: AbortSignal): Promise<void> {
  for await (const _ of createReadStream(path, { highWaterMark: 2 ** 22, signal }));
}

async function measureLoading(one: Ready, session: Session): Promise<void> {
  const { subject, participant } = one;
  const { llm, vision, onnx } = one.wish;
  const inOnnx = onnx ? [MODEL_FILE, WEIGHTS_FILE].map((name) => join(onnx.folder, name)) : [];
  const paths = [llm, vision, ...inOnnx].filter((path) => path !== undefined);
  let memory: Memory | undefined;
  const touchedMs: number[] = [];
  const load = async (): Promise<Run> => {
    const { process, load } = await start(one, session, async () => {
      const ms = await touchMemory(participant.memoryBytes, RUN_LIMIT_MS, session.signal);
      if (ms !== undefined) touchedMs.push(rounded(ms));
    });
    memory = process.memory();
    await process.close();
    return load;
  };
  for (const path of paths) await bringIntoCache(path, session.signal);
  const warm: Run[] = [];
  for (let turn = 0; turn < session.loads; turn++) warm.push(await load());
  const forgotten = await Promise.all(paths.map((path) => addon.forgetFile(path)));
  const cold = forgotten.every(Boolean) ? await load() : undefined;
  const { own, peak } = memory ?? { own: undefined, peak: undefined };
  const fileBytes = Object.values(participant.files).reduce((sum: number, file: PlannedFile) => sum + file.bytes, 0);
  session.record.loads.push({
    ...subject,
    fileBytes,
    warm: timesOf(warm),
    ...(cold && { cold: timesOf([cold]) }),
    ...(peak === undefined ? {} : { loadedPeakBytes: peak }),
    ...(own === undefined ? {} : { ownBytes: own }),
    ...(touchedMs.length > 0 && { touchedMs }),
  });
  session.tell(
    `${one.title}: loads in ${(middle(warm.map(({ ms }) => ms)) / 1000).toFixed(2)} s` +
      (cold ? `, cold in ${(cold.ms / 1000).toFixed(2)} s` : '') +
      (peak === undefined ? '' : `, peak ${(peak / 1e9).toFixed(2)} GB`),
  );
}

/** Gives back those for which memory did not suffice beside the others. */
async function measureTogether(waiting: Ready[], round: number, session: Session): Promise<Ready[]> {
  const started: Started[] = [];
  const later: Ready[] = [];
  try {
    for (const one of waiting) {
      const begun = await attempt(session, one.title, one.participant, async () => {
        try {
          return await start(one, session);
        } catch (error) {
          if (!(error instanceof DoesNotFit) || started.length === 0) throw error;
          later.push(one);
          return undefined;
        }
      });
      if (begun) started.push({ ...one, process: begun.process });
    }
    const running = new Set(started);
    for (const one of started) await once(one, running, session, () => warmUp(one));
    const tests = new Map(started.flatMap(({ participant }) => participant.tests.map((test) => [nameOf(test), test])));
    for (const test of tests.values()) await measureTest(test, running, round, session);
    await measureBusy(running, session);
    for (const { subject, process } of running) {
      const peak = process.memory()?.peak;
      const load = session.record.loads.find((loading) => sameSubject(loading, subject));
      if (load && peak !== undefined) load.peakBytes = peak;
    }
  } finally {
    await Promise.all(started.map(({ process }) => process.close()));
  }
  return later;
}

/** One run; a program that fails takes no further part. */
async function once<T>(
  one: Started,
  running: Set<Started>,
  session: Session,
  what: () => Promise<T>,
  doing?: string,
): Promise<T | undefined> {
  const value = await attempt(session, one.title, one.participant, what, doing);
  if (value === undefined) {
    running.delete(one);
    await one.process.close();
  }
  return value;
}

/** Threads, scratch memory and clocks. */
async function warmUp({ participant, process }: Started): Promise<Run> {
  const first = participant.tests[0]!;
  return process.run(first, 0, RUN_LIMIT_MS);
}

const takesPart = (test: Test, { participant }: Started): boolean =>
  participant.tests.some((own) => nameOf(own) === nameOf(test));

async function measureTest(test: Test, running: Set<Started>, round: number, session: Session): Promise<void> {
  const runs = new Map([...running].filter((one) => takesPart(test, one)).map((one) => [one, [] as Run[]]));
  const began = performance.now();
  for (let turn = 1; turn <= session.repeat; turn++) {
    for (const [one, own] of runs) {
      const run = await once(one, running, session, () => one.process.run(test, turn, RUN_LIMIT_MS));
      if (run) own.push(run);
      else runs.delete(one);
    }
    if (turn >= LEAST_TURNS && performance.now() - began > PATIENCE_MS * runs.size) break;
  }
  for (const [one, own] of runs) {
    const result = resultOf(one, test, own, round, session.record.limits);
    session.record.results.push(result);
    session.tell(`${one.title}: ${toldResult(result)}`);
  }
}

function resultOf(
  { subject, participant }: Ready,
  test: Test,
  runs: Run[],
  round: number,
  limits: readonly Limits[],
): Result {
  const times = timesOf(runs);
  const { count, unit } = doneBy(test);
  const perSecond = (count / times.medianMs) * 1000;
  const result: Result = {
    ...subject,
    test: nameOf(test),
    perSecond: rounded(perSecond, 3),
    unit,
    ...times,
    round,
  };
  if (test.kind === 'generate' || test.kind === 'chats') {
    const steps = test.kind === 'chats' ? perSecond / test.chats : perSecond;
    const rate = (steps * bytesPerToken(participant.tensors)) / 1e9;
    result.gigabytesPerSecond = significant(rate);
    result.limit = 'read';
  } else if (test.kind !== 'firstToken') {
    const operations =
      test.kind === 'prompt'
        ? promptOperations(participant.tensors, test.count)
        : encodingOperations(test.kind === 'vit' ? participant.tensors.filter(isOfVit) : participant.tensors);
    const rate = operations / times.medianMs / 1e9;
    result.teraflops = significant(rate);
    const [withTiles, without] = participant.limits;
    result.limit = limitsFor(subject, limits)?.[withTiles] ? withTiles : without;
  }
  setShare(result, limits);
  return result;
}

function toldResult({ test, medianMs, perSecond, unit, shareOfLimit, limit, disturbed }: Result): string {
  return (
    `${test} ${medianMs.toFixed(1)} ms, ${perSecond.toPrecision(4)} ${unit}` +
    (shareOfLimit === undefined ? '' : `, ${(100 * shareOfLimit).toFixed(1)} % of ${LIMIT_NAMES[limit!]}`) +
    (disturbed ? ' (disturbed)' : '')
  );
}

/** Without it nothing is measured busy; the rest of the run goes on. */
async function startNeighbour(session: Session): Promise<Neighbour | undefined> {
  try {
    return await Neighbour.start();
  } catch (error) {
    if (session.signal.aborted) throw error;
    const line = `with one core kept busy: ${(error as Error).message}`;
    session.failed = true;
    session.record.skipped.push(line);
    session.tell(`left out: ${line}`);
    return undefined;
  }
}

/** Quiet and busy in turn, so that the machine's own changes are in both. */
async function measureBusy(running: Set<Started>, session: Session): Promise<void> {
  const wanted = [...running].filter(({ participant }) => participant.busyTests.length > 0);
  if (wanted.length === 0) return;
  const neighbour = await startNeighbour(session);
  if (!neighbour) return;
  try {
    for (const one of wanted) {
      for (const test of one.participant.busyTests) {
        const [quiet, busy]: [Run[], Run[]] = [[], []];
        const began = performance.now();
        for (let turn = 1; turn <= BUSY_TURNS && running.has(one); turn++) {
          if (performance.now() - began > PATIENCE_MS) break; // one turn tells that a program collapses
          const both = async (): Promise<Run[]> => [
            await one.process.run(test, turn, BUSY_LIMIT_MS),
            await neighbour.busy(() => one.process.run(test, turn + BUSY_TURNS, BUSY_LIMIT_MS)),
          ];
          const runs = await once(one, running, session, both, `${nameOf(test)} with one core kept busy`);
          if (runs) [quiet, busy].forEach((all, i) => all.push(runs[i]!));
        }
        if (!running.has(one)) break;
        const rate = (runs: Run[]): number =>
          rounded((doneBy(test).count / middle(runs.map(({ ms }) => ms))) * 1000, 3);
        const result = { quietPerSecond: rate(quiet), busyPerSecond: rate(busy) };
        const share = rounded(result.busyPerSecond / result.quietPerSecond, 3);
        const disturbed = timesOf(quiet).disturbed || isDisturbed(timesOf(busy).stolenShare);
        session.record.busy.push({
          ...one.subject,
          test: nameOf(test),
          ...result,
          share,
          runs: busy.length,
          disturbed,
        });
        session.tell(
          `${one.title}: ${nameOf(test)} with one core kept busy: ${(100 * share).toFixed(0)} % of the rate without` +
            (disturbed ? ' (disturbed)' : ''),
        );
      }
    }
  } finally {
    neighbour.end();
  }
}
