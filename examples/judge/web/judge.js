"use strict";
const $ = (id) => document.getElementById(id);

// Examples with the verdict that each is to get. Of those in several languages the first that is there is taken.
const examples = [
  { name: "hello", want: "accepted", sh: "echo hello" },
  { name: "double the number", want: "accepted", stdin: "21\n", answer: "42\n", sh: "read n\necho $((n * 2))" },
  { name: "a wrong answer", want: "wrong answer", stdin: "21\n", answer: "42\n", sh: "echo 43" },
  { name: "an error", want: "runtime error", sh: "echo something went wrong >&2\nexit 3" },
  { name: "a crash", want: "runtime error", c: "int main(void) { return *(volatile int *)0; }", sh: "exit 139" },
  { name: "a program that does not compile", want: "compile error", c: "int main(void) { return missing; }" },
  { name: "fork bomb", want: "time limit exceeded", wall: 2000, sh: "bomb() { bomb | bomb & }\nbomb 2>/dev/null\nsleep 60" },
  { name: "memory hog", want: "memory limit exceeded", limited: true, sh: "x=x\nwhile :; do x=$x$x; done" },
  { name: "endless output", want: "output limit exceeded", sh: "while :; do echo 0123456789; done" },
  { name: "endless work", want: "time limit exceeded", cpu: 300, wall: 3000, sh: "while :; do :; done" },
  { name: "sleeping", want: "time limit exceeded", wall: 500, sh: "sleep 60" },
  { name: "network", want: "runtime error",
    python3: "import socket\nsocket.create_connection((\"192.0.2.1\", 80), 5)",
    perl: "use IO::Socket::INET;\nIO::Socket::INET->new(PeerAddr => \"192.0.2.1:80\", Timeout => 5) or die \"$!\\n\";",
    bash: "exec 3<>/dev/tcp/192.0.2.1/80" },
  { name: "writing where it may not", want: "runtime error", sh: "echo gotcha >/etc/passwd" },
  { name: "filling the disk", want: "runtime error", limited: true, memory: 256, sh: "exec dd if=/dev/zero of=/w/big bs=1M count=1000" },
  { name: "killing everybody", want: "accepted", sh: "kill -9 -1 2>/dev/null\necho still here" },
];
const kinds = ["sh", "c", "python3", "perl", "bash"];

let about = { languages: [], default_limits: {} };
let rows = [];

function number(id, factor) {
  const n = Number($(id).value);
  return n > 0 ? Math.round(n * factor) : 0;
}

function request() {
  const r = {
    language: $("language").value, source: $("source").value, stdin: $("stdin").value,
    limits: { cpu_ms: number("cpu", 1), wall_ms: number("wall", 1), memory_bytes: number("memory", 1048576),
      processes: number("processes", 1), output_bytes: number("output", 1024) },
  };
  if ($("want").value !== "") r.want = $("want").value;
  return r;
}

async function judge(r) {
  const resp = await fetch("run", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(r) });
  const body = await resp.json();
  if (!resp.ok) return { verdict: resp.status === 429 ? "too busy" : "refused", stdout: "", stderr: body.error, notes: [] };
  return body;
}

function show(r) {
  $("verdict").textContent = r.verdict;
  $("verdict").className = r.verdict === "accepted" ? "good" : "bad";
  const figures = [];
  if (r.wall_ms !== undefined) figures.push(r.wall_ms.toFixed(1) + " ms");
  if (r.cpu_ms != null) figures.push(r.cpu_ms.toFixed(1) + " ms of CPU time");
  if (r.memory_bytes != null) figures.push((r.memory_bytes / 1048576).toFixed(1) + " MiB");
  if (r.processes != null) figures.push(r.processes + " processes");
  if (r.signal) figures.push("signal: " + r.signal);
  else if (r.exit_code > 0) figures.push("exit code " + r.exit_code);
  $("figures").textContent = figures.concat(r.notes || [], r.error || []).join("; ");
  $("stdout").textContent = r.stdout;
  $("stderr").textContent = r.stderr;
}

function fillIn(e) {
  const d = about.default_limits;
  $("language").value = e.kind;
  $("source").value = e[e.kind] + "\n";
  $("stdin").value = e.stdin || "";
  $("want").value = e.answer || "";
  $("cpu").value = e.cpu || d.cpu_ms;
  $("wall").value = e.wall || d.wall_ms;
  $("memory").value = e.memory || d.memory_bytes / 1048576;
  $("processes").value = d.processes;
  $("output").value = d.output_bytes / 1024;
}

async function runForm() {
  $("run").disabled = true;
  $("verdict").textContent = "…";
  $("verdict").className = "";
  try {
    const r = await judge(request());
    show(r);
    return r;
  } catch (err) {
    const r = { verdict: "no answer", stdout: "", stderr: String(err) };
    show(r);
    return r;
  } finally {
    $("run").disabled = false;
  }
}

async function runExample(row) {
  fillIn(row.e);
  row.verdict.textContent = "…";
  const r = await runForm();
  row.verdict.textContent = r.verdict;
  row.verdict.className = r.verdict === row.e.want ? "good" : "bad";
  row.ms.textContent = r.wall_ms === undefined ? "" : r.wall_ms.toFixed(1);
  row.notes.textContent = (r.notes || []).join("; ");
}

function addRow(e) {
  const tr = document.createElement("tr");
  const cell = () => tr.appendChild(document.createElement("td"));
  const button = cell().appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = e.name;
  const row = { e, verdict: cell() };
  cell().textContent = e.want;
  row.ms = cell();
  row.notes = cell();
  button.addEventListener("click", () => runExample(row));
  $("examples").appendChild(tr);
  rows.push(row);
}

async function begin() {
  about = await (await fetch("version")).json();
  for (const l of about.languages) $("language").appendChild(new Option(l, l));
  const limited = !(about.not_held || []).some((n) => n.startsWith("cgroup:"));
  for (const e of examples) {
    e.kind = kinds.concat().sort((a, b) => (a === "c" ? -1 : 0) - (b === "c" ? -1 : 0)).find((k) => e[k] && about.languages.includes(k));
    if (e.kind && (limited || !e.limited)) addRow(e);
  }
  fillIn(rows[0].e);
  $("form").addEventListener("submit", (ev) => { ev.preventDefault(); runForm(); });
  $("all").addEventListener("click", async () => {
    for (const row of rows) await runExample(row);
    document.body.dataset.done = "all";
  });
  document.body.dataset.ready = "yes";
}

begin().catch((err) => { $("verdict").textContent = "the service does not answer: " + err; });
