'use strict';
const at = id => document.getElementById(id);
let request = 0, stop = null, last = null;

function say(text, error) {
	at('status').textContent = text;
	at('status').classList.toggle('error', Boolean(error));
}

const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

// post sends the film and returns the answer. While the service is busy it tries again, up
// to 10 times.
async function post(film, signal) {
	for (let tries = 1; ; tries++) {
		const reply = await fetch('predict?with=film,overlay,mask&side=1600', {method: 'POST', body: film, signal});
		if (reply.status === 429 && tries < 10) {
			const seconds = Number(reply.headers.get('Retry-After')) || 1;
			say('The service is busy; trying again …');
			await wait(seconds * tries);
			signal.throwIfAborted();
			continue;
		}
		const body = await reply.json();
		if (!reply.ok) throw new Error(body.error.message + ' (request ' + body.id + ')');
		return body;
	}
}

async function predict(film) {
	const mine = ++request;
	if (stop) stop.abort();
	stop = new AbortController();
	at('result').hidden = true;
	say('Looking at ' + film.name + ' …');
	try {
		const body = await post(film, stop.signal);
		if (mine === request) show(body, film.name);
	} catch (error) {
		if (mine === request) say(error instanceof TypeError ? 'The service does not answer: ' + error.message : error.message, true);
	}
}

function picture() {
	at('picture').src = 'data:image/png;base64,' + (at('contour').checked ? last.overlay_png : last.film_png);
	at('picture').alt = at('contour').checked ? 'the film with the contour of what was found' : 'the film';
}

function show(body, name) {
	last = body;
	say('');
	picture();
	at('mask').href = 'data:image/png;base64,' + body.mask_png;
	at('mask').download = name.replace(/\.[^.]*$/, '') + '.mask.png';
	const found = body.findings.filter(f => f.positive).map(f => f.class);
	at('verdict').textContent = found.length ? 'Found: ' + found.join(', ') : 'Nothing found';
	at('findings').replaceChildren(...body.findings.map(f => {
		const row = document.createElement('tr');
		const area = f.area_mm2 ? Math.round(f.area_mm2) + ' mm²' : f.positive ? 'not known' : '–';
		for (const text of [f.class, f.pixels, area, f.highest_probability.toFixed(3)]) {
			row.insertCell().textContent = text;
		}
		return row;
	}));
	at('warnings').replaceChildren(...body.warnings.map(w => {
		const item = document.createElement('li');
		item.textContent = w;
		return item;
	}));
	at('film').textContent = name + ', ' + body.width + ' × ' + body.height + ' pixels, ' + (body.timings.total_ms / 1000).toFixed(2) + ' s';
	at('request').textContent = body.id;
	at('result').hidden = false;
}

at('contour').addEventListener('change', picture);
at('file').addEventListener('change', () => {
	if (at('file').files.length) predict(at('file').files[0]);
	at('file').value = ''; // so that the same film can be chosen again
});
for (const type of ['dragover', 'dragleave', 'drop']) {
	document.addEventListener(type, event => {
		event.preventDefault();
		at('drop').classList.toggle('over', type === 'dragover');
		if (type === 'drop' && event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
	});
}
