import { count } from "../format";
import { share, short, time } from "./scale";
import type { Score, Stage } from "./types";

const STATES = { waiting: "waits", running: "running", quiet: "quiet", finished: "finished" };

export function Stages({ stages, shown, show }: { stages: Stage[]; shown: string; show(name: string): void }) {
  return (
    <div class="scrolls" tabIndex={0} role="region" aria-label="Stages">
      <table class="stages">
        <thead>
          <tr>
            <th class="text">Stage</th>
            <th class="text">State</th>
            <th class="text wide-cell">Steps</th>
            <th>Time</th>
            <th>A step</th>
            <th>Left</th>
            <th>Loss</th>
            <th>Reward</th>
            <th>Right</th>
            <th>Rollouts</th>
          </tr>
        </thead>
        <tbody>
          {stages.map((stage) => (
            <tr key={stage.name} class={stage.name === shown ? "shown" : ""}>
              <td class="text">
                <button type="button" class="link" aria-pressed={stage.name === shown} onClick={() => show(stage.name)}>
                  {stage.name}
                </button>{" "}
                <small>{stage.kind}</small>
              </td>
              <td class="text">
                <span class={`state ${stage.state}`}>{STATES[stage.state]}</span>
              </td>
              <td class="text wide-cell">
                <Progress done={stage.steps} total={stage.total} />
              </td>
              <td>{stage.seconds > 0 ? time(stage.seconds) : ""}</td>
              <td>{stage.step_seconds === null ? "" : time(stage.step_seconds)}</td>
              <td>{stage.left_seconds === null ? "" : time(stage.left_seconds)}</td>
              <td>{newest(stage, "loss")}</td>
              <td>{newest(stage, "reward")}</td>
              <td>{newest(stage, "rewards/accuracy/mean", share)}</td>
              <td>{stage.rollouts > 0 ? count(stage.rollouts) : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function newest(stage: Stage, name: string, write: (value: number) => string = short): string {
  const value = stage.newest?.[name];
  return typeof value === "number" ? write(value) : "";
}

function Progress({ done, total }: { done: number; total: number | null }) {
  const part = total === null || total === 0 ? null : Math.min(1, done / total);
  return (
    <span class="progress">
      {part !== null && (
        <svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
          <rect class="bar-all" width="100" height="6" />
          <rect class="bar-done" width={100 * part} height="6" />
        </svg>
      )}
      <span>{total === null ? count(done) : `${count(done)} of ${count(total)}`}</span>
    </span>
  );
}

/** What the run itself would say: why the reward does not rise, what cannot be read. */
export function Advice({ stages }: { stages: Stage[] }) {
  const due = stages.flatMap((stage) =>
    stage.state === "finished" ? [] : stage.amiss.filter((amiss) => amiss.now).map((amiss) => ({ stage, amiss })),
  );
  const broken = stages.flatMap((stage) => stage.broken.map((reason) => ({ stage, reason })));
  return (
    <>
      {due.map(({ stage, amiss }) => (
        <p key={`${stage.name} ${amiss.reason}`} class="advice" role="status">
          <b>
            {stage.name}: {amiss.reason}, for {amiss.streak} steps.
          </b>{" "}
          {sentence(amiss.advice)}
        </p>
      ))}
      {broken.map(({ stage, reason }) => (
        <p key={`${stage.name} ${reason}`} class="advice broken" role="status">
          <b>{stage.name}:</b> {reason}
        </p>
      ))}
    </>
  );
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

/** In how many steps each reason held. */
export function Reasons({ stage }: { stage: Stage }) {
  if (stage.amiss.length === 0) return null;
  return (
    <section>
      <h2>Why a reward may not rise</h2>
      <div class="scrolls" tabIndex={0} role="region" aria-label="Why a reward may not rise">
        <table>
          <thead>
            <tr>
              <th class="text">Reason</th>
              <th>Steps</th>
              <th>First</th>
              <th>Last</th>
              <th>In a row now</th>
              <th class="text">What to do</th>
            </tr>
          </thead>
          <tbody>
            {stage.amiss.map((amiss) => (
              <tr key={amiss.reason}>
                <td class="text">{amiss.reason}</td>
                <td>{count(amiss.steps)}</td>
                <td>{count(amiss.first)}</td>
                <td>{count(amiss.last)}</td>
                <td>{count(amiss.streak)}</td>
                <td class="text prose-cell">{amiss.advice}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Held-out scores of all stages. */
export function Scores({ stages }: { stages: Stage[] }) {
  const rows = stages.flatMap((stage) => stage.scores.map((score) => ({ stage, score })));
  if (rows.length === 0) return null;
  return (
    <section>
      <h2>Held-out scores</h2>
      <div class="scrolls" tabIndex={0} role="region" aria-label="Held-out scores">
        <table>
          <thead>
            <tr>
              <th class="text">Stage</th>
              <th class="text">Task</th>
              <th class="text">Side</th>
              <th class="text">Asked</th>
              <th>Problems</th>
              <th>pass@1</th>
              <th class="text wide-cell" aria-label="pass@1 as a bar" />
              <th>Blind search</th>
              <th>pass@k</th>
              <th>Tokens</th>
              <th>Cut off</th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ stage, score }) => (
              <tr key={`${stage.name} ${score.task} ${score.side} ${score.mode}`}>
                <td class="text">{stage.name}</td>
                <td class="text">{score.task}</td>
                <td class="text">{score.side}</td>
                <td class="text">{score.mode}</td>
                <td>{count(score.problems)}</td>
                <td>{share(score.pass_at_1.mean)}</td>
                <td class="text wide-cell">
                  <Interval score={score} />
                </td>
                <td>{score.blind === null ? "" : share(score.blind)}</td>
                <td>{score.pass_at_k === null ? "" : `${share(score.pass_at_k[1])} (${score.pass_at_k[0]})`}</td>
                <td>{score.mean_tokens === null ? "" : short(score.mean_tokens)}</td>
                <td>{score.truncated === null ? "" : share(score.truncated)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="note">
        The line is the 95 % interval over problems or their clusters; blind search: as many attempts at random, with a perfect check;
        pass@k: chance that one of k answers is right.
      </p>
    </section>
  );
}

function Interval({ score: { pass_at_1: pass } }: { score: Score }) {
  const low = Math.max(0, pass.low);
  return (
    <svg class="bar tall" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="bar-all" y="2" width="100" height="6" />
      <rect class="bar-done" y="2" width={100 * pass.mean} height="6" />
      <rect class="whisker" x={100 * low} y="4" width={100 * (Math.min(1, pass.high) - low)} height="2" />
    </svg>
  );
}
