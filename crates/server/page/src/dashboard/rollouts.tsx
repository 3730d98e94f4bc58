import { useEffect, useRef, useState } from "preact/hooks";
import { count } from "../format";
import type { Place } from "./place";
import { short } from "./scale";
import type { Brief, Found, FoundGroup, Group, Rollout, Stage } from "./types";
import { Refused, find, group } from "./watch";

const VERDICTS = { right: "right", wrong: "wrong", gold_unusable: "problem unusable" };
/** Typing waits so long for the next letter before a search begins. */
const TYPING_MS = 200;

type Go = (change: Partial<Place>) => void;

/** What is searched, and how much of it. */
interface Listing {
  found: FoundGroup[];
  about: Found | null;
  milliseconds: number;
  busy: boolean;
  error: string | null;
}

const NOTHING: Listing = { found: [], about: null, milliseconds: 0, busy: true, error: null };

/** The groups that fit, read on until there are some or the file ends. */
function useListing(stage: Stage, place: Place): Listing & { more(): void; again(): void } {
  const [listing, setListing] = useState<Listing>(NOTHING);
  const [turn, setTurn] = useState(0);
  const controller = useRef<AbortController | null>(null);
  const { step, problem, verdict, truncated, text, order } = place;
  const query = { step, problem, verdict, truncated, text, order };
  const asked = JSON.stringify([stage.name, query, turn]);

  const read = async (before: FoundGroup[], from: number | null) => {
    controller.current?.abort();
    const own = new AbortController();
    controller.current = own;
    const began = performance.now();
    let found = before;
    let next = from;
    setListing((listing) => ({ ...listing, busy: true }));
    try {
      do {
        const answer = await find(stage.name, { ...query, from: next === null ? "" : String(next) }, own.signal);
        found = [...found, ...answer.found];
        next = answer.next;
        const done = next === null || found.length > before.length + 10;
        setListing({ found, about: answer, milliseconds: performance.now() - began, busy: !done, error: null });
        if (done) return;
      } while (!own.signal.aborted);
    } catch (error) {
      if (own.signal.aborted) return;
      const reason = error instanceof Refused ? error.message : "the server does not answer";
      setListing((listing) => ({ ...listing, busy: false, error: reason }));
    }
  };

  useEffect(() => {
    const timer = setTimeout(() => void read([], null), listing.about === null ? 0 : TYPING_MS);
    return () => clearTimeout(timer);
    // A new list comes when something else is asked, not whenever the run goes on: what is read must not move.
  }, [asked]);
  useEffect(() => () => controller.current?.abort(), []);
  return {
    ...listing,
    more: () => void read(listing.found, listing.about?.next ?? null),
    again: () => setTurn(turn + 1),
  };
}

export function Rollouts({ stage, place, go }: { stage: Stage; place: Place; go: Go }) {
  const listing = useListing(stage, place);
  const { about } = listing;
  const newer = about === null || place.order === "oldest" ? 0 : stage.groups - about.groups;
  const field = (name: "step" | "problem" | "text", label: string, kind: string, mode?: "numeric") => (
    <label>
      {label}
      <input
        type={kind}
        name={name}
        value={place[name]}
        inputMode={mode ?? "text"}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => go({ [name]: mode === undefined ? event.currentTarget.value : event.currentTarget.value.replace(/\D/g, "") })}
      />
    </label>
  );
  const choice = (name: "verdict" | "truncated" | "order", label: string, choices: [string, string][]) => (
    <label>
      {label}
      <select name={name} value={place[name]} onChange={(event) => go({ [name]: event.currentTarget.value })}>
        {choices.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <div class="rollouts">
      <form class="filters" role="search" aria-label="Rollouts" onSubmit={(event) => event.preventDefault()}>
        {field("step", "Step", "text", "numeric")}
        {field("text", "Text in question or answer", "search")}
        {field("problem", "Problem", "text", "numeric")}
        {choice("verdict", "Verdict", [["", "any"], ["right", "right"], ["wrong", "wrong"], ["gold_unusable", "problem unusable"]])}
        {choice("truncated", "Length", [["", "any"], ["true", "cut off"], ["false", "ended"]])}
        {choice("order", "Order", [["", "newest first"], ["oldest", "oldest first"]])}
        <button type="button" class="quiet" onClick={() => go({ step: "", problem: "", text: "", verdict: "", truncated: "" })}>
          Clear
        </button>
      </form>
      <div class="split">
        <section class="list" aria-label="Groups of rollouts">
          <p class="note" role="status">
            <Summary listing={listing} stage={stage} text={place.text} />
            {newer > 0 && (
              <>
                {" "}
                <button type="button" class="link" onClick={listing.again}>
                  Show {count(newer)} newer
                </button>
              </>
            )}
          </p>
          <ul>
            {listing.found.map((entry) => (
              <Entry key={entry.group} entry={entry} shown={String(entry.group) === place.group} show={() => go({ group: String(entry.group) })} />
            ))}
          </ul>
          {!listing.busy && listing.about?.next !== null && listing.about !== null && (
            <button type="button" class="more-rows" onClick={listing.more}>
              More
            </button>
          )}
        </section>
        <Reading stage={stage} place={place} go={go} />
      </div>
    </div>
  );
}

function Summary({ listing, stage, text }: { listing: Listing; stage: Stage; text: string }) {
  const { about, error } = listing;
  if (error !== null) return <span class="danger">{error}</span>;
  if (about === null) return <>Reading …</>;
  const all = `${count(about.rollouts)} rollouts in ${count(about.groups)} groups`;
  const partly = stage.read < 1 ? ` (${Math.floor(100 * stage.read)} % of the file read so far)` : "";
  const fit = text === "" ? `${count(about.fitting)} fit` : `${count(listing.found.length)} shown`;
  const timed = `${Math.round(listing.milliseconds)} ms`;
  return (
    <>
      {all}
      {partly}; {fit}
      {listing.busy ? ", searching …" : ` (${timed})`}.
    </>
  );
}

function Entry({ entry, shown, show }: { entry: FoundGroup; shown: boolean; show(): void }) {
  const right = entry.rollouts.filter(({ verdict }) => verdict === "right").length;
  return (
    <li>
      <button type="button" class="group-row" aria-pressed={shown} onClick={show} onKeyDown={step}>
        <span class="group-head">
          <span>step {count(entry.step)}</span>
          <span class="muted">{entry.task}</span>
          <Pips rollouts={entry.rollouts} label={`${right} of ${entry.rollouts.length} right`} />
        </span>
        <span class="group-question">{entry.question}</span>
      </button>
    </li>
  );
}

/** The arrows go from row to row. */
function step(event: KeyboardEvent) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (by === undefined) return;
  const rows = [...document.querySelectorAll<HTMLElement>(".group-row")];
  const next = rows[rows.indexOf(event.currentTarget as HTMLElement) + by];
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
  next.click();
}

/** A mark for each rollout: full for right, hollow for wrong, a bar where it was cut off. */
function Pips({ rollouts, label }: { rollouts: Brief[]; label: string }) {
  return (
    <span class="pips" role="img" aria-label={label} title={label}>
      {rollouts.map((brief, i) => (
        <i key={i} class={`pip ${brief.verdict}${brief.truncated ? " cut" : ""}${brief.fits ? "" : " apart"}`} />
      ))}
    </span>
  );
}

function Reading({ stage, place, go }: { stage: Stage; place: Place; go: Go }) {
  const [read, setRead] = useState<{ of: string; group: Group | null; error: string | null }>({ of: "", group: null, error: null });
  const wanted = `${stage.name} ${place.group}`;
  const frame = useRef<HTMLElement>(null);
  useEffect(() => {
    if (place.group === "") return;
    const own = new AbortController();
    group(stage.name, Number(place.group), own.signal)
      .then((group) => {
        setRead({ of: wanted, group, error: null });
      })
      .catch((error: unknown) => {
        if (own.signal.aborted) return;
        setRead({ of: wanted, group: null, error: error instanceof Refused ? error.message : "the server does not answer" });
      });
    return () => own.abort();
  }, [wanted]);
  useEffect(() => {
    if (read.group === null) return;
    frame.current?.scrollTo(0, 0);
    // On narrow screens it lies below the list.
    if (matchMedia("(max-width: 50rem)").matches) frame.current?.scrollIntoView();
  }, [read.group]);
  if (place.group === "") return <section class="reading empty">Choose a group to read what was asked and answered.</section>;
  if (read.of !== wanted) return <section class="reading empty" aria-busy="true" />;
  if (read.group === null) return <section class="reading empty danger">{read.error}</section>;
  const { record } = read.group;
  const fits = ({ verdict, truncated, text }: Rollout) =>
    (place.verdict === "" || place.verdict === verdict) &&
    (place.truncated === "" || (place.truncated === "true") === truncated) &&
    (place.text === "" || has(text, place.text) || has(record.question, place.text));
  return (
    <section class="reading" ref={frame} aria-label="The group" tabIndex={0}>
      <p class="note">
        Step {count(record.step)}, task {record.task}, problem{" "}
        <button type="button" class="link" title="All groups of this problem" onClick={() => go({ problem: record.id, step: "" })}>
          {record.id}
        </button>
        ;{" "}
        <button type="button" class="link" onClick={() => go({ step: String(record.step), problem: "" })}>
          all of this step
        </button>
      </p>
      <pre class="question">
        <Marked text={record.question} part={place.text} />
      </pre>
      {record.rollouts.map((rollout, i) => (
        <Answer key={i} number={i + 1} rollout={rollout} fits={fits(rollout)} part={place.text} />
      ))}
    </section>
  );
}

function Answer({ number, rollout, fits, part }: { number: number; rollout: Rollout; fits: boolean; part: string }) {
  const end = rollout.text.indexOf("</think>");
  const cut = end < 0 ? 0 : end + "</think>".length;
  const facts = [
    `reward ${short(rollout.reward ?? NaN)}`,
    `advantage ${short(rollout.advantage ?? NaN)}`,
    rollout.format > 0 ? "has the format" : null,
    rollout.language === undefined ? null : `language ${short(rollout.language)}`,
    rollout.overlong === undefined ? null : `penalty for length ${short(rollout.overlong)}`,
    `${count(rollout.tokens)} tokens`,
  ].filter((fact) => fact !== null);
  return (
    <details class={`answer ${rollout.verdict}`} open={fits}>
      <summary>
        <span class="verdict">
          {number}. {VERDICTS[rollout.verdict]}
        </span>
        <span class="muted">{facts.join(" · ")}</span>
        {rollout.truncated && <span class="cut-off">cut off</span>}
      </summary>
      <pre>
        {cut > 0 && (
          <span class="thought">
            <Marked text={rollout.text.slice(0, cut)} part={part} />
          </span>
        )}
        <Marked text={rollout.text.slice(cut)} part={part} />
      </pre>
    </details>
  );
}

/** Capitals of ASCII count as small letters, as in the search. */
const lower = (text: string) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
const has = (text: string, part: string) => lower(text).includes(lower(part));

function Marked({ text, part }: { text: string; part: string }) {
  if (part === "" || !has(text, part)) return <>{text}</>;
  const [all, wanted] = [lower(text), lower(part)];
  const pieces = [];
  let start = 0;
  for (let at = all.indexOf(wanted); at >= 0 && pieces.length < 2000; at = all.indexOf(wanted, start)) {
    pieces.push(text.slice(start, at), <mark key={at}>{text.slice(at, at + part.length)}</mark>);
    start = at + part.length;
  }
  return (
    <>
      {pieces}
      {text.slice(start)}
    </>
  );
}
