// Try it by microphone: sends the audio to the service, and shows the level and the running answers.

const trial = document.querySelector("[data-trial]");
const find = (name) => document.querySelector(`[data-${name}]`);
const [start, stop, seconds, answer, says] = ["start", "stop", "seconds", "answer", "says"].map(find);
const level = document.getElementById("level");
const QUIET = -60; // dB, the left end of the level's scale

const number = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

function percent(share) {
  if (share === null) return "–";
  const value = 100 * share;
  if (value === 0 || value >= 10) return `${value.toFixed(0)} %`;
  return value >= 0.01 ? `${Number(value.toPrecision(2))} %` : "< 0.01 %";
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function showRow(match) {
  const row = document.createElement("tr");
  const head = element("th", match.may_read ? "" : match.caller_id, "break");
  head.scope = "row";
  if (match.may_read) {
    const link = element("a", match.caller_id);
    link.href = `caller?id=${encodeURIComponent(match.caller_id)}`;
    head.append(link);
  }
  row.append(
    head,
    element("td", number(match.similarity, 3), "num"),
    element("td", number(match.llr, 1), "num"),
    element("td", percent(match.fpir), "num nowrap"),
    element("td", percent(match.probability), "num nowrap"),
  );
  return row;
}

let said = "";

function show(found) {
  seconds.textContent = `${number(found.audio_s, 1)} s, speech ${number(found.net_speech_s, 1)} s`;
  const accepted = found.matches[0]?.accepted ? found.matches[0].caller_id : "";
  const state = found.final ? "" : found.decided ? "decided, still listening" : "so far";
  const now = [found.verdict, accepted, state, ...found.reasons, ...found.feedback].join();
  if (now !== said) {
    // The live region changes with the answer alone: a screen reader would speak all the time.
    said = now;
    const head = element("p", "", "big");
    head.append(element("span", found.word, `tag ${found.verdict}`), ` ${accepted}`);
    const notes = [state, ...found.reasons, ...found.feedback].filter(Boolean);
    answer.replaceChildren(head, ...(notes.length ? [element("p", notes.join(", "), "quiet")] : []));
  }
  find("matches-region").hidden = found.matches.length === 0;
  find("matches").replaceChildren(...found.matches.map(showRow));
  if (says && found.says) says.textContent = found.says;
  if (find("mark") && found.x !== null) {
    find("mark").setAttribute("x", `${found.x}%`);
    find("mark").setAttribute("visibility", "visible");
    find("mark-legend").hidden = false;
  }
}

function fail(text) {
  said = "";
  answer.replaceChildren(element("p", text, "notice bad"));
}

function context() {
  try {
    return new AudioContext({ sampleRate: 16000 }); // the service's own rate: the least to send
  } catch {
    return new AudioContext();
  }
}

async function listen() {
  start.disabled = true;
  let microphone, audio;
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + trial.dataset.trial);
  const end = () => {
    microphone?.getTracks().forEach((track) => track.stop());
    if (audio && audio.state !== "closed") audio.close();
    stop.disabled = true;
    start.disabled = false;
    level.value = QUIET;
  };
  socket.addEventListener("message", ({ data }) => {
    const found = JSON.parse(data);
    if (found.type === "error") fail(found.detail);
    else show(found);
  });
  socket.addEventListener("close", ({ code }) => {
    end();
    if (code !== 1000 && code !== 1005) fail("The connection to the service ended: load the page again.");
  });
  try {
    microphone = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    socket.close();
    fail(error.name === "NotAllowedError" ? "The browser may not use the microphone: allow it." : "There is no microphone.");
    return;
  }
  audio = context();
  await audio.audioWorklet.addModule("/console/static/recorder.js");
  const recorder = new AudioWorkletNode(audio, "recorder");
  audio.createMediaStreamSource(microphone).connect(recorder).connect(audio.destination);
  if (socket.readyState === WebSocket.CONNECTING) {
    await new Promise((resolve) => ["open", "close"].forEach((name) => socket.addEventListener(name, resolve)));
  }
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify({ rate: audio.sampleRate }));
  recorder.port.addEventListener("message", ({ data }) => {
    level.value = data.level;
    if (socket.readyState === WebSocket.OPEN) socket.send(data.samples);
  });
  recorder.port.start();
  stop.disabled = false;
  stop.onclick = () => {
    stop.disabled = true;
    recorder.port.close();
    if (socket.readyState === WebSocket.OPEN) socket.send("stop");
  };
}

if (trial && navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode) {
  find("needs-script").hidden = true;
  trial.hidden = false;
  start.addEventListener("click", listen);
}
