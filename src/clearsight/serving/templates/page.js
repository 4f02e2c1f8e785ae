"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const at = id => document.getElementById(id);
const canvas = at("canvas"), pen = canvas.getContext("2d", {willReadFrequently: true});
const video = document.createElement("video");
let stream = null, shown = null, heat = null, sent = null, turn = 0;
video.muted = true;
video.playsInline = true;

// What the model sees of a source (width, height): the part that its resize and crop keep.
function seen(width, height) {
  if (facts.resize === null) return [0, 0, width, height];
  const scale = facts.resize / Math.min(width, height);
  const w = facts.width / scale, h = facts.height / scale;
  return [(width - w) / 2, (height - h) / 2, w, h];
}

// The map's value between the centres of its places, as the explainers enlarge it.
function enlarged(values, width, height) {
  const rows = values.length, columns = values[0].length, out = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const v = Math.min(rows - 1, Math.max(0, (y + 0.5) * rows / height - 0.5));
    const top = Math.floor(v), below = Math.min(rows - 1, top + 1), b = v - top;
    for (let x = 0; x < width; x++) {
      const u = Math.min(columns - 1, Math.max(0, (x + 0.5) * columns / width - 0.5));
      const left = Math.floor(u), right = Math.min(columns - 1, left + 1), r = u - left;
      out[y * width + x] = (1 - b) * ((1 - r) * values[top][left] + r * values[top][right])
        + b * ((1 - r) * values[below][left] + r * values[below][right]);
    }
  }
  return out;
}

// The absolute value that is drawn with full ink: a percentile of all of them, between the two nearest.
function fullInk(values) {
  const ordered = values.map(Math.abs).sort(), place = (ordered.length - 1) * facts.percentile / 100;
  const low = Math.floor(place), high = Math.ceil(place);
  return ordered[low] + (place - low) * (ordered[high] - ordered[low]) || ordered[ordered.length - 1] || 1;
}

function drawHeat(values) {
  const {width, height} = canvas, image = pen.getImageData(0, 0, width, height), p = image.data;
  const ink = enlarged(values, width, height), full = fullInk(ink);
  for (let i = 0; i < ink.length; i++) {
    const strength = Math.min(1, Math.max(-1, ink[i] / full)), s = Math.abs(strength);
    const grey = 0.2126 * p[4 * i] + 0.7152 * p[4 * i + 1] + 0.0722 * p[4 * i + 2];
    const paper = 255 * facts.palest + (1 - facts.palest) * grey;
    const [faint, deep] = strength < 0 ? facts.against : facts.for;
    for (let c = 0; c < 3; c++) {
      p[4 * i + c] = (1 - facts.opaque * s) * paper + facts.opaque * s * (faint[c] + (deep[c] - faint[c]) * s);
    }
  }
  pen.putImageData(image, 0, 0);
}

function draw() {
  if (shown === null) return;
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(shown, ...seen(shown.width, shown.height), 0, 0, canvas.width, canvas.height);
  if (heat !== null && at("heat") && at("heat").checked) drawHeat(heat);
  at("drop").classList.add("full");
}

function percent(p) {
  return p > 0.9995 && p < 1 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`;
}

function tell(found, milliseconds) {
  const best = found.answers.reduce((a, b) => (b.probability ?? 0) > (a.probability ?? 0) ? b : a);
  at("answer").textContent = best.label;
  at("sure").textContent = "probability" in best ? percent(best.probability) : String(best.value);
  at("status").textContent = `Answered in ${Math.round(milliseconds)} ms`;
  at("rows").replaceChildren(...found.answers.map(row));
  canvas.setAttribute("aria-label", `The picture, answered with ${best.label}`);
  const outlier = found.outlier;
  at("outlier").textContent = outlier && outlier.share !== null
    ? `More unusual than ${percent(outlier.share)} of the reference pictures (${outlier.method}).` : "";
}

function row(answer) {
  const line = document.createElement("tr"), name = document.createElement("td"), cell = document.createElement("td");
  const share = document.createElement("div"), number = document.createElement("span");
  name.textContent = answer.label;
  cell.className = "num";
  share.className = "share";
  if ("probability" in answer) {
    const bar = document.createElement("meter");
    bar.value = answer.probability;
    bar.setAttribute("aria-hidden", "true");
    share.append(bar);
    number.textContent = percent(answer.probability);
  } else {
    number.textContent = answer.value.toPrecision(4);
  }
  share.append(number);
  cell.append(share);
  line.append(name, cell);
  return line;
}

function fail(sentence) {
  heat = null;
  at("answer").textContent = "No answer";
  at("sure").textContent = "";
  at("status").textContent = sentence;
  at("rows").replaceChildren();
  at("outlier").textContent = "";
}

async function post(path, body) {
  const headers = at("apikey") && at("apikey").value ? {"X-API-Key": at("apikey").value} : {};
  const response = await fetch(path, {method: "POST", body, headers});
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

// Ask about a picture file; source is what is drawn of it.
async function ask(file, source) {
  const mine = ++turn, began = performance.now();
  try {
    const found = await (await post(`/predict?top=5&map=${facts.map}`, file)).json();
    if (mine !== turn) return;
    [shown, heat, sent] = [source, found.map ? found.map.values : null, file];
    draw();
    tell(found, performance.now() - began);
    if (at("explain")) at("explain").disabled = false;
  } catch (e) {
    if (mine !== turn) return;
    [shown, sent] = [source, null];
    fail(e.message);
    draw();
  }
}

async function take(file) {
  closeCamera();
  at("status").textContent = "Asking ...";
  let source = null;
  try {
    source = await createImageBitmap(file);
  } catch {
    source = null; // the browser cannot draw it; the server may read it all the same
  }
  await ask(file, source);
}

async function openCamera() {
  if (!navigator.mediaDevices) {
    fail("This browser opens cameras only at https addresses and on this machine itself.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment", width: {ideal: 640}}});
  } catch (e) {
    fail(`The camera cannot be opened (${e.name}).`);
    return;
  }
  at("camera").textContent = "Close the camera";
  video.srcObject = stream;
  await video.play();
  while (stream !== null) {
    const frame = document.createElement("canvas");
    [frame.width, frame.height] = [video.videoWidth, video.videoHeight];
    frame.getContext("2d").drawImage(video, 0, 0);
    const file = await new Promise(done => frame.toBlob(done, "image/jpeg", 0.9));
    if (stream === null) break;
    await ask(file, frame);
    await new Promise(requestAnimationFrame);
    if (sent === null) closeCamera(); // it was refused: the sentence stays
  }
}

function closeCamera() {
  if (stream === null) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  at("camera").textContent = "Open the camera";
}

async function explain() {
  if (sent === null) return;
  at("status").textContent = "Explaining ...";
  try {
    const png = await (await post("/explain?as=overlay", sent)).blob();
    pen.drawImage(await createImageBitmap(png), 0, 0, canvas.width, canvas.height);
    at("key").hidden = false;
    at("status").textContent = "Explained by grad-cam";
  } catch (e) {
    at("status").textContent = e.message;
  }
}

at("file").addEventListener("change", e => {
  if (e.target.files.length) take(e.target.files[0]);
  e.target.value = "";
});
at("camera").addEventListener("click", () => stream === null ? openCamera() : closeCamera());
if (at("heat")) at("heat").addEventListener("change", draw);
if (at("explain")) at("explain").addEventListener("click", explain);
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, e => {
    e.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && e.dataTransfer.files.length) take(e.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", e => {
  if (e.clipboardData.files.length) take(e.clipboardData.files[0]);
});
